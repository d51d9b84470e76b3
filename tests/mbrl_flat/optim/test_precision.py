"""Lower precision: bfloat16 autocast, float16 with loss scaling, and a compiled loss."""

from functools import partial

import pytest
import torch

from mbrl_flat.errors import NonFiniteError
from mbrl_flat.optim import OPTIMIZERS, make_optimizer

NAMES = sorted(OPTIMIZERS)


class Regression:
    """A float32 net and its closures."""

    def __init__(self, dtype=None, scaler=None, forward=None):
        torch.manual_seed(0)
        norm = torch.nn.BatchNorm1d(16)
        first = torch.nn.Linear(4, 16, bias=False)
        self.net = torch.nn.Sequential(first, norm, torch.nn.Linear(16, 1))
        self.x, self.y = torch.randn(8, 4), torch.randn(8, 1)
        self.dtype, self.scaler = dtype, scaler
        self.loss = (forward or (lambda f: f))(self._loss)

    def _loss(self):
        return (self.net(self.x).float() - self.y).square().mean()

    def closure(self):
        self.net.zero_grad()
        enabled = self.dtype is not None
        with torch.autocast("cpu", dtype=self.dtype or torch.bfloat16, enabled=enabled):
            loss = self.loss()
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return loss.detach()

    def values(self):
        return [p.detach().clone() for p in self.net.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_steps_under_bfloat16_autocast_and_keeps_its_weights_in_float32(make, name):
    problem = Regression(dtype=torch.bfloat16)
    optimizer = make(name, problem.net)
    before = problem.values()

    for _ in range(3):
        optimizer.step(problem.closure)

    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in problem.values())
    assert not torch.equal(problem.values()[0], before[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_scale_that_is_a_power_of_two_changes_nothing(make, name):
    """Scaling by a power of two is exact in float32, so every method must see true units."""
    results = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)):
        problem = Regression(scaler=scaler)
        optimizer = make(name, problem.net, max_grad_norm=0.5)
        for _ in range(4):
            optimizer.step(problem.closure, scaler=scaler)
        results.append(problem.values())

    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_the_scaler_grows_and_backs_off_once_a_step_and_overflow_is_skipped():
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    problem = Regression(scaler=scaler)
    optimizer = make_optimizer("sam", problem.net, rho=0.05)
    for _ in range(2):
        optimizer.step(problem.closure, scaler=scaler)
    assert scaler.get_scale() == 8.0
    before = problem.values()
    problem.y.mul_(100.0)
    scaler.update(new_scale=3e38)

    optimizer.step(problem.closure, scaler=scaler)

    assert scaler.get_scale() == pytest.approx(1.5e38)
    assert optimizer.last["skipped"] == 1.0
    assert all(torch.equal(a, b) for a, b in zip(problem.values(), before, strict=True))


def test_a_loss_that_is_not_finite_is_an_error_even_with_a_scaler():
    scaler = torch.amp.GradScaler("cpu")
    problem = Regression(scaler=scaler)
    problem.y.fill_(float("nan"))
    optimizer = make_optimizer("sam", problem.net)

    with pytest.raises(NonFiniteError):
        optimizer.step(problem.closure, scaler=scaler)


def test_a_disabled_scaler_is_as_none():
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    problem = Regression(scaler=scaler)
    optimizer = make_optimizer("sam", problem.net)

    loss = optimizer.step(problem.closure, scaler=scaler)

    assert loss.isfinite()
    assert optimizer.last["skipped"] == 0.0


def test_float16_autocast_with_a_scaler_learns():
    scaler = torch.amp.GradScaler("cpu")
    problem = Regression(dtype=torch.float16, scaler=scaler)
    optimizer = make_optimizer("sam", problem.net, lr=1e-2)

    losses = [float(optimizer.step(problem.closure, scaler=scaler)) for _ in range(30)]

    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sam", "vasso", "ivon"])
def test_a_compiled_loss_gives_the_steps_of_an_eager_one_and_compiles_once(make, name):
    results, counts = [], []
    for forward in (None, partial(torch.compile, fullgraph=True)):
        problem = Regression(forward=forward)
        optimizer = make(name, problem.net)
        with torch._dynamo.config.patch(error_on_recompile=forward is not None):
            for _ in range(4):
                optimizer.step(problem.closure)
        results.append(problem.values())
        counts.append(int(problem.net[1].num_batches_tracked))

    assert counts == [4, 4]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("sam", {"rho": 0.5}), ("gsam", {"rho": 0.5}), ("vgd", {"sigma": 0.3, "num_samples": 2})],
)
def test_autocast_around_the_step_is_autocast_within_the_closure(name, settings):
    """The casts of weights that autocast keeps are those of the weights as they were before."""

    def train(*, around):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        x = torch.randn(8, 4)
        optimizer = make_optimizer(name, net, base=partial(torch.optim.SGD, lr=0.1), **settings)

        def closure():
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = net(x).float().square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=around):
                optimizer.step(closure)
        return float(optimizer.last["perturbed_gap"]), [
            p.detach().clone() for p in net.parameters()
        ]

    (gap, weights), (gap_around, weights_around) = train(around=False), train(around=True)
    assert gap == gap_around
    assert name == "vgd" or gap > 0.0
    assert all(torch.equal(a, b) for a, b in zip(weights, weights_around, strict=True))
