"""Closures that are none, each refused in one sentence."""

from functools import partial

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS, make_optimizer

NAMES = sorted(OPTIMIZERS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("closure", [None, []])
def test_a_step_without_a_closure_is_refused(problem, make, name, closure):
    optimizer = make(name, problem.groups())

    with pytest.raises(UserError, match=r"step was given .*; give a closure that"):
        optimizer.step(closure)


@pytest.mark.parametrize("name", NAMES)
def test_a_closure_that_does_not_call_backward_is_refused_and_nothing_moves(problem, make, name):
    optimizer = make(name, problem.groups())
    before = problem.values()

    with pytest.raises(UserError, match="left no gradient in any parameter; give a closure that"):
        optimizer.step(lambda: problem.net(problem.x).mean())

    assert all(torch.equal(a, b) for a, b in zip(problem.values(), before, strict=True))


@pytest.mark.parametrize("result", [None, 1.0, torch.ones(3), torch.tensor(1j), torch.tensor(1)])
def test_a_closure_that_returns_no_loss_is_refused(problem, make, result):
    optimizer = make("sam", problem.groups())

    with pytest.raises(UserError, match=r"The closure returned .* and not a scalar loss"):
        optimizer.step(lambda: result)


def test_a_closure_may_return_the_same_tensor_every_time(quadratic):
    param, own = quadratic(torch.eye(2), torch.ones(2))
    buffer, losses = torch.zeros((), dtype=torch.float64), []
    optimizer = make_optimizer("sam", [param], base="sgd", lr=0.0, rho=0.5)

    def closure():
        losses.append(float(own()))
        return buffer.fill_(losses[-1])

    loss = optimizer.step(closure)

    assert float(loss) == losses[0]
    assert float(optimizer.last["perturbed_gap"]) == pytest.approx(losses[1] - losses[0])


def test_a_sparse_gradient_is_refused():
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = make_optimizer("sam", table, base=partial(torch.optim.SGD, lr=0.1))

    def closure():
        optimizer.zero_grad()
        loss = table(torch.tensor([1, 2])).square().sum()
        loss.backward()
        return loss

    with pytest.raises(UserError, match="sparse=False"):
        optimizer.step(closure)
