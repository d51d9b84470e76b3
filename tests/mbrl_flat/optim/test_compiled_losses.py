"""A compiled loss is compiled once for each set of parameters that take a gradient."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from mbrl_flat.optim import OPTIMIZERS

# Functional-SAM refuses compiled code, which hides the layers of its outputs.
NAMES = sorted({*OPTIMIZERS} - {"functional_sam"})


def compilations(problem, optimizer, steps=6):
    """How often the loss was compiled in some steps."""
    # What earlier tests compiled counts towards the limit after which nothing is compiled.
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(
        lambda: (problem.net(problem.x) - problem.y).square().mean(), backend=counter
    )

    def closure():
        optimizer.zero_grad()
        loss = compiled()
        loss.backward()
        return loss.detach()

    for _ in range(steps):
        optimizer.step(closure)
    return counter.frame_count


@pytest.mark.parametrize("name", NAMES)
def test_every_method_compiles_the_loss_at_most_twice(problem, make, name):
    """A hook with another number in every evaluation had it compiled anew in each of them."""
    problem.net.dropout = 0.0
    optimizer = make(name, problem.groups(), compiled=True)

    assert compilations(problem, optimizer) <= 2
    # Running statistics move once a step in compiled code too.
    assert problem.net.norm.num_batches_tracked == 6


@pytest.mark.parametrize("name", [n for n in NAMES if "only" in OPTIMIZERS[n].settings])
def test_methods_that_look_around_in_some_modules_do_so_too(problem, make, name):
    optimizer = make(name, problem.groups(), only=["head"], compiled=True)

    assert compilations(problem, optimizer) <= 2
