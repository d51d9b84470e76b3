"""Several closures in one step: one perturbation for all (replay) or one for each (m-sharpness)."""

from functools import partial

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS, make_optimizer

LR, RHO = 0.1, 0.3
SLOPES = torch.tensor([[3.0, 1.0], [-1.0, 2.0], [0.5, 0.5]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0], dtype=torch.float64)


@pytest.fixture
def shards():
    """A parameter and the closures of three losses ``(a_i . w)^2 / 2``."""
    param = torch.nn.Parameter(START.clone())

    def shard(slope):
        def closure():
            param.grad = None
            loss = 0.5 * (slope @ param) ** 2
            loss.backward()
            return loss.detach()

        return closure

    return param, [shard(slope) for slope in SLOPES]


def grads(w):
    """Gradient of every shard, ``[3, 2]``."""
    return (SLOPES @ w)[:, None] * SLOPES


def step(shards, name="sam", **settings):
    param, closures = shards
    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer(name, [param], base=base, **settings)
    loss = optimizer.step(closures)
    return param.detach(), loss, optimizer


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_replayed_micro_batches_are_one_large_batch(shards):
    result, loss, optimizer = step(shards, rho=RHO)

    g = grads(START).mean(0)
    close(result, START - LR * grads(START + RHO * g / g.norm()).mean(0))
    close(loss, (0.5 * (SLOPES @ START) ** 2).mean())
    assert optimizer.last["evaluations"] == 6.0


def test_each_micro_batch_may_have_its_own_displacement(shards):
    result, loss, optimizer = step(shards, rho=RHO, micro_batches="each")

    finals = [grads(START + RHO * g / g.norm())[i] for i, g in enumerate(grads(START))]
    close(result, START - LR * torch.stack(finals).mean(0))
    close(loss, (0.5 * (SLOPES @ START) ** 2).mean())
    assert optimizer.last["evaluations"] == 6.0


@pytest.mark.parametrize("micro_batches", ["replay", "each"])
def test_for_a_plain_optimizer_both_meanings_are_accumulation(shards, micro_batches):
    param, closures = shards
    optimizer = make_optimizer("sgd", [param], lr=LR, micro_batches=micro_batches)

    optimizer.step(closures)

    close(param.detach(), START - LR * grads(START).mean(0))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("micro_batches", ["replay", "each"])
def test_one_micro_batch_is_the_same_as_no_list(new_problem, make, name, micro_batches):
    results = []
    for as_list in (False, True):
        problem = new_problem()
        optimizer = make(name, problem.groups(), micro_batches=micro_batches)
        for _ in range(3):
            optimizer.step([problem.closure] if as_list else problem.closure)
        results.append(problem.values())

    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("micro_batches", ["replay", "each"])
def test_every_method_steps_on_several_micro_batches(problem, make, name, micro_batches):
    optimizer = make(name, problem.groups(), micro_batches=micro_batches)
    before = problem.values()

    optimizer.step([problem.closure, problem.closure])

    assert optimizer.last["evaluations"] == problem.calls
    assert not torch.equal(problem.values()[-1], before[-1])
    assert all(torch.isfinite(v).all() for v in problem.values())


def test_another_meaning_is_refused(problem, make):
    with pytest.raises(UserError, match="micro_batches"):
        make("sam", problem.groups(), micro_batches="some")
