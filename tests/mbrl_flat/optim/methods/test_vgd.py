"""VGD against its equations on quadratics, in float64."""

from functools import partial

import pytest
import torch

from mbrl_flat.optim import make_optimizer
from mbrl_flat.optim.methods.vgd import student_t, threshold
from tests.mbrl_flat.optim.quadratic import LR, START, H, close, grad


@pytest.mark.parametrize(
    ("sigma", "num_samples", "expected"), [(0.5, 1, 6.0639), (0.5, 8, 10.6262), (1.0, 1, 4.0)]
)
def test_the_threshold_is_the_root_of_its_cubic(sigma, num_samples, expected):
    """arXiv:2506.12903: x + x^3 / z = 2 / lr."""
    x = threshold(lr=0.1, gradient_squared=4.0, sigma=sigma, num_samples=num_samples)

    assert x == pytest.approx(expected, abs=1e-4)
    z = num_samples * 4.0 / sigma**2
    assert x + x**3 / z == pytest.approx(2.0 / 0.1, rel=1e-12)


@pytest.mark.parametrize(("sigma", "num_samples"), [(0.5, 1), (0.5, 8), (1.0, 1)])
def test_a_step_lowers_the_expected_loss_just_below_the_threshold_and_raises_it_above(
    sigma, num_samples
):
    """Many equal directions at once, so that the mean over them stands for the expectation."""
    limit = threshold(lr=LR, gradient_squared=4.0, sigma=sigma, num_samples=num_samples)
    for factor, sign in ((0.95, -1.0), (1.05, 1.0)):
        curvature = factor * limit
        start = torch.full((100_000,), 2.0 / curvature, dtype=torch.float64)
        param = torch.nn.Parameter(start.clone())

        def closure(param=param, curvature=curvature):
            param.grad = curvature * param.detach()
            return 0.5 * curvature * param.detach().square().sum()

        base = partial(torch.optim.SGD, lr=LR)
        settings = {"sigma": sigma, "num_samples": num_samples}
        make_optimizer("vgd", [param], base=base, **settings).step(closure)

        change = float(param.detach().square().mean() - start.square().mean())
        assert change * sign > 0.0


@pytest.mark.parametrize("num_samples", [1, 4])
def test_the_step_takes_the_gradient_at_the_mean_of_the_samples(quadratic, num_samples):
    """On a quadratic the mean gradient is that at the mean point."""
    param, closure = quadratic(H, START)
    points = []

    def watched():
        points.append(param.detach().clone())
        return closure()

    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer("vgd", [param], base=base, sigma=0.2, num_samples=num_samples)
    optimizer.step(watched)

    assert len(points) == num_samples
    close(param.detach(), START - LR * grad(torch.stack(points).mean(0)))


@pytest.mark.parametrize(("dof", "variance"), [(None, 1.0), (6.0, 1.5)])
def test_the_noise_has_the_variance_of_its_distribution(dof, variance):
    noise = student_t(
        torch.empty(200_000, dtype=torch.float64), dof, torch.Generator().manual_seed(0)
    )

    assert float(noise.var()) == pytest.approx(variance, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.02)


def test_without_noise_the_threshold_is_that_of_descent_and_without_a_gradient_zero():
    known = {"lr": 0.1, "num_samples": 1}
    assert threshold(gradient_squared=0.5, sigma=0.0, **known) == 20.0
    assert threshold(gradient_squared=0.0, sigma=0.1, **known) == 0.0
    assert threshold(gradient_squared=0.5, sigma=1e-9, **known) == pytest.approx(20.0)
