"""IVON against its equations on quadratics, in float64."""

from contextlib import nullcontext

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.models import kernels
from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import START, H, close, grad


def watch(param, closure):
    points = []

    def watched():
        points.append(param.detach().clone())
        return closure()

    return watched, points


@pytest.mark.parametrize("num_samples", [1, 3])
def test_two_steps_follow_the_equations(quadratic, num_samples):
    """arXiv:2402.17641, with the samples read off the points of evaluation."""
    ess, h0, delta, beta1, beta2, lr = 50.0, 0.7, 0.01, 0.9, 0.95, 0.2
    param, closure = quadratic(H, START)
    watched, points = watch(param, closure)
    optimizer = make_optimizer(
        "ivon",
        [param],
        lr=lr,
        ess=ess,
        hess_init=h0,
        betas=(beta1, beta2),
        weight_decay=delta,
        num_samples=num_samples,
    )
    m, h, momentum = START.clone(), torch.full_like(START, h0), torch.zeros_like(START)

    for t in (1, 2):
        optimizer.step(watched)
        thetas = points[-num_samples:]
        g = torch.stack([grad(p) for p in thetas]).mean(0)
        f = ess * (h + delta) * torch.stack([(p - m) * grad(p) for p in thetas]).mean(0)
        momentum = beta1 * momentum + (1 - beta1) * g
        h = beta2 * h + (1 - beta2) * f + 0.5 * (1 - beta2) ** 2 * (h - f) ** 2 / (h + delta)
        m = m - lr * (h0 + delta) * (momentum / (1 - beta1**t) + delta * m) / (h + delta)
        close(param.detach(), m)


def test_the_samples_have_the_variance_of_the_posterior(quadratic):
    param, closure = quadratic(H, START)
    watched, points = watch(param, closure)
    optimizer = make_optimizer(
        "ivon", [param], lr=0.0, ess=100.0, hess_init=0.5, num_samples=4000, weight_decay=0.5
    )

    optimizer.step(watched)

    deviation = (torch.stack(points) - START).std(0)
    torch.testing.assert_close(deviation, torch.full_like(START, 0.1), rtol=0.05, atol=0)


def test_the_precision_settles_at_the_curvature():
    """On c w^2 / 2 the expected f is c; the weights stay (lr = 0)."""
    w = torch.nn.Parameter(torch.zeros(500, dtype=torch.float64))

    def closure():
        w.grad = None
        loss = (2.5 * w.square() / 2).sum()
        loss.backward()
        return loss.detach()

    optimizer = make_optimizer("ivon", [w], lr=0.0, ess=10.0, betas=(0.9, 0.99), num_samples=2)
    for _ in range(600):
        optimizer.step(closure)

    assert float(optimizer.state[w]["hessian"].mean()) == pytest.approx(2.5, rel=0.03)


def test_every_entry_of_the_step_is_bounded_by_the_clip_radius(quadratic):
    param, closure = quadratic(H, START)
    optimizer = make_optimizer("ivon", [param], lr=1.0, ess=1e8, clip_radius=0.01, weight_decay=0.0)

    optimizer.step(closure)

    close((param.detach() - START).abs(), torch.full_like(START, 0.01))


def test_sampled_params_hold_a_draw_and_give_the_mean_back(quadratic):
    param, _closure = quadratic(H, START)
    optimizer = make_optimizer("ivon", [param], ess=100.0)
    before = param.detach().clone()
    draws = []

    for _ in range(2):
        with optimizer.sampled_params():
            draws.append(param.detach().clone())

    assert torch.equal(param.detach(), before)
    # Every draw is its own, within six standard deviations of the mean: 1 / sqrt(ess (h + decay)).
    shifts = torch.stack([draw - before for draw in draws])
    deviation = (100.0 * (optimizer.hess_init + optimizer.weight_decay)) ** -0.5
    assert (shifts.abs() < 6.0 * deviation).all()
    assert ((shifts[0] - shifts[1]).abs() > 1e-6 * deviation).all()


def test_replaying_one_micro_batch_twice_is_the_same_as_once(quadratic):
    results = []
    for repeat in (1, 2):
        torch.manual_seed(0)
        param, closure = quadratic(H, START)
        optimizer = make_optimizer("ivon", [param], ess=100.0)
        optimizer.step([closure] * repeat)
        results.append(param.detach())

    close(*results)


def test_looking_at_predictions_does_not_change_training(quadratic):
    def train(*, look):
        torch.manual_seed(0)
        param, closure = quadratic(H, START)
        optimizer = make_optimizer("ivon", [param], ess=1000.0)
        seen = []
        for _ in range(3):
            optimizer.step(closure)
            for _ in range(look):
                with optimizer.sampled_params():
                    seen.append(param.detach().clone())
        return param.detach(), seen

    plain, _ = train(look=0)
    looked_at, seen = train(look=2)

    assert torch.equal(plain, looked_at)
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize("wrong", [{"betas": (1.0, 0.99)}, {"betas": (0.9, 1.0)}, {"lr": -0.1}])
def test_rates_out_of_range_are_refused(quadratic, wrong):
    param, _ = quadratic(H, START)
    with pytest.raises(UserError, match=f"{next(iter(wrong))} must"):
        make_optimizer("ivon", [param], **wrong)


@pytest.mark.parametrize("settings", [{}, {"clip_radius": 1e-3, "betas": (0.3, 0.9)}])
def test_one_pass_in_c_agrees_with_torch_to_rounding(settings, one_thread):
    ends = []
    for fused in (True, False):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(9, 31), torch.nn.Tanh(), torch.nn.Linear(31, 3))
        x, y = torch.randn(40, 9), torch.randn(40, 3)
        optimizer = make_optimizer("ivon", net, lr=0.3, ess=500.0, num_samples=2, **settings)

        def closure(net=net, optimizer=optimizer, x=x, y=y):
            optimizer.zero_grad()
            loss = (net(x) - y).square().mean()
            loss.backward()
            return loss

        with nullcontext() if fused else kernels.turned_off():
            for _ in range(5):
                optimizer.step(closure)
        states = [optimizer.state[p] for p in net.parameters()]
        ends.append([*net.parameters(), *(v for s in states for v in s.values())])

    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-7)


def test_the_pass_in_c_keeps_what_is_not_a_number():
    param = torch.nn.Parameter(torch.zeros(3))
    param.grad = torch.tensor([1.0, float("nan"), -1.0])
    optimizer = make_optimizer("ivon", [param], lr=1.0, clip_radius=1e-3)
    optimizer.base.statistic = {param: torch.zeros(3)}

    optimizer.base.step()

    assert param.isnan().tolist() == [False, True, False]
