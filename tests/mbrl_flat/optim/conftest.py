"""A small problem with everything that makes a second evaluation differ, and its optimizers."""

from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.optim import OPTIMIZERS, make_optimizer, module_groups

BASE = partial(torch.optim.Adam, lr=1e-2, fused=True)
SMALL = {"ivon": {"ess": 1e8}, "bsam": {"num_data": 1e8}, "swa": {"start": 2, "every": 2}}
"""Settings that suit a small problem and few steps, by method."""


class Net(nn.Module):
    """Linear layers, BatchNorm and dropout, in float64."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.encoder = nn.Linear(3, 6)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 1)
        self.dropout = dropout
        self.double()

    def forward(self, x):
        hidden = torch.tanh(self.norm(self.encoder(x)))
        return self.head(nn.functional.dropout(hidden, self.dropout, self.training))


class Problem:
    """A net, fixed data, and a closure that counts and remembers."""

    def __init__(self, seed=0, dropout=0.2):
        torch.manual_seed(seed)
        self.net = Net(dropout)
        self.x = torch.randn(8, 3, dtype=torch.float64)
        self.y = torch.randn(8, 1, dtype=torch.float64)
        self.points = []
        self.losses = []
        self.outputs = []
        self.fail_at = None
        self.nan_at = None
        self.unused_at = {}

    @property
    def calls(self):
        return len(self.losses)

    def groups(self):
        net = self.net
        modules = {"encoder": net.encoder, "norm": net.norm, "head": net.head}
        return module_groups(modules)

    def params(self):
        return list(self.net.parameters())

    def values(self):
        return [p.detach().clone() for p in self.params()]

    def closure(self):
        call = self.calls
        self.points.append(self.values())
        for param in self.params():
            param.grad = None
        output = self.net(self.x)
        loss = (output - self.y).square().mean()
        self.outputs.append(output.detach())
        self.losses.append(float(loss.detach()))
        if call == self.fail_at:
            raise RuntimeError("the closure fails")
        if call == self.nan_at:
            loss = loss * float("nan")
        loss.backward()
        for param in self.unused_at.get(call, []):
            param.grad = None
        return loss.detach()


@pytest.fixture
def problem():
    return Problem()


@pytest.fixture
def new_problem():
    return Problem


@pytest.fixture
def make():
    """``make(name, params, **settings)``: small settings, Adam as the base where there is one."""

    def build(name, params, **settings):
        if OPTIMIZERS[name].has_base:
            settings.setdefault("base", BASE)
        else:
            settings.setdefault("lr", 1e-2)
        if name == "sam_on" and settings.get("only") == ["head"]:
            # It chooses among layers of a kind, and the head is no normalisation layer.
            settings.setdefault("layers", "other")
        return make_optimizer(name, params, **{**SMALL.get(name, {}), **settings})

    return build


@pytest.fixture
def unmoved():
    """``unmoved(name, a, b)``: equal bit for bit, or up to rounding if the method adds back."""

    def check(name, actual, expected):
        close = torch.equal
        if not OPTIMIZERS[name].exact_restore:
            close = partial(torch.allclose, rtol=1e-13, atol=1e-14)
        return all(close(a, b) for a, b in zip(actual, expected, strict=True))

    return check


@pytest.fixture
def quadratic():
    """``quadratic(hessian, start)``: a parameter and the closure of ``w' H w / 2``."""

    def build(hessian, start):
        matrix = torch.as_tensor(hessian, dtype=torch.float64)
        param = nn.Parameter(torch.as_tensor(start, dtype=torch.float64).clone())

        def closure():
            param.grad = None
            loss = 0.5 * param @ matrix @ param
            loss.backward()
            return loss.detach()

        return param, closure

    return build
