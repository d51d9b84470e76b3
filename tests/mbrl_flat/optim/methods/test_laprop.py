"""LaProp and adaptive gradient clipping against their equations, in float64."""

from functools import partial
from itertools import pairwise

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import make_optimizer
from mbrl_flat.optim.methods.laprop import LaProp, clip_factor

LR, BETA1, BETA2, EPS = 0.1, 0.8, 0.9, 1e-20
H = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0], dtype=torch.float64)
SETTINGS = {"betas": (BETA1, BETA2), "eps": EPS}


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def expected_path(steps, *, clip=None, min_norm=1e-3, weight_decay=0.0):
    """The equations as written, arXiv:2002.04839."""
    w, s, m = START.clone(), torch.zeros(2).double(), torch.zeros(2).double()
    for t in range(1, steps + 1):
        g = H @ w
        if clip is not None:
            g = g * min(1.0, clip * max(min_norm, float(w.norm())) / float(g.norm()))
        s = BETA2 * s + (1.0 - BETA2) * g**2
        m = BETA1 * m + (1.0 - BETA1) * g / ((s / (1.0 - BETA2**t)).sqrt() + EPS)
        w = (1.0 - LR * weight_decay) * w - LR * m / (1.0 - BETA1**t)
    return w


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("clip", [None, 0.3, 100.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_steps_on_a_quadratic_are_those_of_the_equations(quadratic, steps, clip, weight_decay):
    param, closure = quadratic(H, START)
    optimizer = make_optimizer(
        "laprop", [param], lr=LR, clip=clip, weight_decay=weight_decay, **SETTINGS
    )

    for _ in range(steps):
        optimizer.step(closure)

    close(param.detach(), expected_path(steps, clip=clip, weight_decay=weight_decay))


def test_the_first_step_is_the_sign_of_the_gradient_however_large_it_is(quadratic):
    for scale in (1e-6, 1.0, 1e6):
        param, closure = quadratic(scale * H, START)

        make_optimizer("laprop", [param], lr=LR, clip=None).step(closure)

        close(param.detach(), START - LR * torch.sign(H @ START))


def test_without_an_average_laprop_is_adam(quadratic):
    """With beta_1 = 0 the order of averaging and normalising does not matter."""
    results = []
    for name, extra in (("laprop", {"clip": None}), ("adam", {"fused": False})):
        param, closure = quadratic(H, START)
        optimizer = make_optimizer(name, [param], lr=LR, betas=(0.0, 0.9), eps=1e-8, **extra)
        for _ in range(5):
            optimizer.step(closure)
        results.append(param.detach())

    close(*results)


def slope(param, gradient):
    param.grad = torch.full_like(param, gradient)
    return param.detach().sum()


def test_a_step_never_exceeds_the_learning_rate_where_adams_does():
    """The average of normalised gradients is bounded; an average over an old spread is not."""
    longest = {}
    for name, settings in (("laprop", {"clip": None}), ("adam", {})):
        param = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = make_optimizer(name, [param], lr=1.0, betas=(0.99, 0.5), **settings)
        at = [0.0]
        for gradient in [1.0, *[1e-3] * 40]:
            optimizer.step(partial(slope, param, gradient))
            at.append(float(param.detach()))
        longest[name] = max(abs(b - a) for a, b in pairwise(at))

    assert longest["laprop"] <= 1.0 + 1e-12
    assert longest["adam"] > 10.0


@pytest.mark.parametrize(
    ("weight", "grad", "factor"),
    [
        ([3.0, 4.0], [0.0, 10.0], 0.15),
        ([3.0, 4.0], [0.0, 1.0], 1.0),
        ([0.0, 0.0], [3.0, 4.0], 6e-5),
        ([1.0, 0.0], [0.0, 0.0], 1.0),
    ],
)
def test_clipping_bounds_a_gradient_by_the_norm_of_the_weights(weight, grad, factor):
    """arXiv:2102.06171, with clip 0.3, weights that count as at least 1e-3 long."""
    w, g, expected = (torch.tensor(x, dtype=torch.float64) for x in (weight, grad, factor))

    close(clip_factor(w, g, 0.3, 1e-3), expected)


def test_every_tensor_is_clipped_by_itself():
    long, short = (
        torch.nn.Parameter(torch.full((2,), x, dtype=torch.float64)) for x in (10.0, 0.01)
    )
    base = LaProp([long, short], LR, betas=(0.0, 0.0), clip=0.3)
    for param in (long, short):
        param.grad = torch.full_like(param, 1.0)

    base.step()

    assert base.state[long]["exp_avg_sq"].tolist() == [1.0, 1.0]
    # Half of the squared norm of the clipped gradient for each of the two entries.
    close(base.state[short]["exp_avg_sq"], torch.full_like(short.detach(), (0.3 * 0.01) ** 2))


def test_as_a_base_of_sam_it_clips_the_gradient_at_the_perturbed_weights(quadratic):
    param, closure = quadratic(H, START)
    base = partial(LaProp, lr=LR, betas=(0.0, 0.0), clip=0.3)
    optimizer = make_optimizer("sam", [param], base=base, rho=0.5)
    g = H @ START
    g = H @ (START + 0.5 * g / g.norm())

    optimizer.step(closure)

    clipped = g * min(1.0, 0.3 * float(START.norm()) / float(g.norm()))
    close(optimizer.state[param]["exp_avg_sq"], clipped**2)
    torch.testing.assert_close(param.grad, g)


def test_base_laprop_is_known_by_name_and_takes_the_rate(quadratic):
    param, _ = quadratic(H, START)

    optimizer = make_optimizer("vasso", [param], base="laprop", lr=0.25)

    assert isinstance(optimizer.base, LaProp)
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    "settings", [{"betas": (1.0, 0.9)}, {"eps": -1.0}, {"clip": 0.0}, {"min_norm": 0.0}, {"lr": -1}]
)
def test_a_setting_out_of_its_range_is_refused(quadratic, settings):
    param, _ = quadratic(H, START)

    with pytest.raises(UserError, match=next(iter(settings))):
        make_optimizer("laprop", [param], **settings)
