"""The published SAM of TD-MPC2 against its equations, in float64: the heads' step, the defect."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.errors import NonFiniteError, UserError
from mbrl_flat.optim import make_optimizer

LR, RHO = 0.1, 0.3
H = torch.tensor([[3.0, 1.0, 0.5], [1.0, 2.0, -0.7], [0.5, -0.7, 4.0]], dtype=torch.float64)
HEADS = slice(2, 3)


class Joint:
    """``w' H w / 2`` of the weights ``w = (model, heads)``, scaled by a factor for each batch."""

    def __init__(self):
        self.model = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        self.heads = nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
        self.factor, self.calls, self.nan_at = 1.0, 0, None

    def groups(self):
        return [
            {"params": [self.model], "flat_name": "model"},
            {"params": [self.heads], "flat_name": "heads"},
        ]

    def closure(self):
        self.model.grad = self.heads.grad = None
        w = torch.cat([self.model, self.heads])
        loss = 0.5 * self.factor * w @ H @ w
        loss = loss * float("nan") if self.calls == self.nan_at else loss
        self.calls += 1
        loss.backward()
        return loss.detach()

    def values(self):
        return torch.cat([self.model, self.heads]).detach().clone()


def make(joint, *, base=None, **settings):
    base = base or partial(torch.optim.SGD, lr=LR)
    settings = {"only": ["model"], "rho": RHO, **settings}
    return make_optimizer("sam_as_published", joint.groups(), base=base, **settings)


def by_hand(w, factors, *, bound=None):
    """The equations of the page, for a base of plain gradient descent."""
    left = 0.0

    def clipped(g):
        return g if bound is None else g * min(1.0, bound / (float(g.norm()) + 1e-6))

    for factor in factors:
        g = factor * H @ w
        there = w.clone()
        there[:2] += RHO * g[:2] / (g[:2].norm() + 1e-12)
        there[HEADS] = w[HEADS] - LR * clipped(g[HEADS] + left)
        perturbed = factor * H @ there
        left = perturbed[HEADS]
        w = torch.cat([w[:2] - LR * clipped(perturbed[:2]), there[HEADS]])
    return w


@pytest.mark.parametrize("bound", [None, 1.0])
def test_heads_step_in_between_on_the_clean_gradient_and_the_left_over_one(bound):
    joint, factors = Joint(), [1.0, 0.6, 1.3]
    start = joint.values()
    optimizer = make(joint, max_grad_norm=bound, clip_scope="module")

    for joint.factor in factors:
        optimizer.step(joint.closure)

    torch.testing.assert_close(
        joint.values(), by_hand(start, factors, bound=bound), rtol=1e-12, atol=0
    )
    assert joint.calls == 6


def test_adam_counts_one_step_of_every_parameter():
    joint = Joint()
    optimizer = make(joint, base=partial(torch.optim.Adam, lr=LR))

    for _ in range(3):
        optimizer.step(joint.closure)

    assert [float(optimizer.state[p]["step"]) for p in (joint.model, joint.heads)] == [3.0, 3.0]


def test_without_heads_it_is_sam():
    ours, sam = Joint(), Joint()
    optimizers = [
        make(ours, only=None),
        make_optimizer("sam", sam.groups(), base=partial(torch.optim.SGD, lr=LR), rho=RHO),
    ]

    for joint, optimizer in zip((ours, sam), optimizers, strict=True):
        for _ in range(3):
            optimizer.step(joint.closure)

    assert torch.equal(ours.values(), sam.values())


@pytest.mark.parametrize("on_nonfinite", ["skip", "raise"])
@pytest.mark.parametrize("call", [0, 1])
def test_a_step_that_is_not_finite_undoes_the_step_of_the_heads(on_nonfinite, call):
    joint = Joint()
    optimizer = make(joint, base=partial(torch.optim.Adam, lr=LR), on_nonfinite=on_nonfinite)
    optimizer.step(joint.closure)
    twin, other = copy.deepcopy((joint, optimizer))
    joint.nan_at = joint.calls + call

    if on_nonfinite == "raise":
        with pytest.raises(NonFiniteError):
            optimizer.step(joint.closure)
    else:
        optimizer.step(joint.closure)
    assert torch.equal(joint.values(), twin.values())
    optimizer.step(joint.closure)
    other.step(twin.closure)

    assert torch.equal(joint.values(), twin.values())


def test_a_resumed_run_has_what_was_left_behind():
    joint, start = Joint(), Joint()
    optimizer = make(joint)
    for joint.factor in (1.0, 0.6):
        optimizer.step(joint.closure)
    again = Joint()
    second = make(again)
    with torch.no_grad():
        again.model.copy_(joint.model)
        again.heads.copy_(joint.heads)

    second.load_state_dict(optimizer.state_dict())
    again.factor = 1.3
    second.step(again.closure)

    expected = by_hand(start.values(), [1.0, 0.6, 1.3])
    torch.testing.assert_close(again.values(), expected, rtol=1e-12, atol=0)


def test_options_that_would_split_the_step_are_refused():
    joint = Joint()
    with pytest.raises(UserError, match="needs sync=global"):
        make(joint, sync="local")
    with pytest.raises(UserError, match="set micro_batches=replay"):
        make(joint, micro_batches="each").step(joint.closure)
