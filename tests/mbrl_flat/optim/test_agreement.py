"""Agreement with an independent implementation, the package pytorch-optimizer, in float64.

Only methods that are right there: its bSAM never takes the noise off the weights.
"""

from functools import partial

import pytest
import pytorch_optimizer
import torch

from mbrl_flat.optim import make_optimizer

STEPS, LR, RHO = 12, 0.05, 0.1
BASES = {
    "sgd": (torch.optim.SGD, {"lr": LR, "momentum": 0.9, "weight_decay": 1e-2}),
    "adam": (torch.optim.Adam, {"lr": LR}),
}


class Regression:
    """A small net with a nonlinearity; every new one starts at the same weights."""

    def __init__(self):
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)
        ).double()
        self.x, self.y = torch.randn(8, 3).double(), torch.randn(8, 1).double()

    def closure(self):
        self.net.zero_grad()
        loss = (self.net(self.x) - self.y).square().mean()
        loss.backward()
        return loss

    def weights(self):
        return [p.detach().clone() for p in self.net.parameters()]


def ours(name, base, **settings):
    """Weights after some steps of an optimizer of the registry."""
    problem = Regression()
    kind, arguments = BASES[base]
    optimizer = make_optimizer(name, problem.net, base=partial(kind, **arguments), **settings)
    for _ in range(STEPS):
        optimizer.step(problem.closure)
    return problem.weights()


def theirs(make, base, *, first=True):
    """The same of theirs; ``first``: gradients have to be there before the step."""
    problem = Regression()
    kind, arguments = BASES[base]
    optimizer = make(problem.net, kind, arguments)
    for _ in range(STEPS):
        if first:
            problem.closure()
        optimizer.step(problem.closure)
    return problem.weights()


def agree(a, b):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-7)


def sam(net, kind, arguments):
    return pytorch_optimizer.SAM(net.parameters(), kind, rho=RHO, **arguments)


def adaptive_sam(net, kind, arguments):
    return pytorch_optimizer.SAM(net.parameters(), kind, rho=RHO, adaptive=True, **arguments)


@pytest.mark.parametrize("base", BASES)
def test_sam(base):
    agree(ours("sam", base, rho=RHO), theirs(sam, base))


def test_asam_without_biases():
    """Theirs scales biases too and perturbs by ``w^2 g / |w g|``; so does ours with eta=0."""
    net = torch.nn.Linear(4, 3, bias=False).double()
    x, y = torch.randn(8, 4).double(), torch.randn(8, 3).double()
    start, results = net.weight.detach().clone(), []
    for is_ours in (True, False):
        with torch.no_grad():
            net.weight.copy_(start)

        def closure():
            net.zero_grad()
            loss = (torch.tanh(net(x)) - y).square().mean()
            loss.backward()
            return loss

        base = partial(torch.optim.SGD, lr=LR)
        if is_ours:
            optimizer = make_optimizer("asam", net, base=base, rho=RHO, eta=0.0)
        else:
            optimizer = adaptive_sam(net, torch.optim.SGD, {"lr": LR})
        for _ in range(STEPS):
            closure()
            optimizer.step(closure)
        results.append([net.weight.detach().clone()])

    agree(*results)


class Radius:
    """Theirs asks a scheduler for the radius."""

    def step(self):
        return RHO


@pytest.mark.parametrize("base", BASES)
def test_gsam(base):
    def make(net, kind, arguments):
        inner = kind(net.parameters(), **arguments)
        optimizer = pytorch_optimizer.GSAM(
            net.parameters(), inner, net, rho_scheduler=Radius(), alpha=0.4
        )
        step = optimizer.step
        # Its closure returns the outputs beside the loss.
        optimizer.step = lambda closure: step(torch.enable_grad()(lambda: (None, closure())))
        return optimizer

    agree(ours("gsam", base, rho=RHO, alpha=0.4), theirs(make, base, first=False))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("form", ["coupled", "decoupled"])
def test_wsam(base, form):
    def make(net, kind, arguments):
        return pytorch_optimizer.WSAM(
            net,
            net.parameters(),
            kind,
            rho=RHO,
            gamma=0.8,
            decouple=form == "decoupled",
            **arguments,
        )

    result = ours("wsam", base, rho=RHO, gamma=0.8, form=form)

    agree(result, theirs(make, base, first=False))


@pytest.mark.parametrize("base", BASES)
def test_looksam(base):
    """Theirs takes norms tensor by tensor, as ours with ``scope=tensor``."""

    def make(net, kind, arguments):
        return pytorch_optimizer.LookSAM(
            net.parameters(), kind, rho=RHO, k=3, alpha=0.7, **arguments
        )

    result = ours("looksam", base, rho=RHO, every=3, alpha=0.7, scope="tensor")

    agree(result, theirs(make, base))
