"""Layers that make a second evaluation special: synchronised BatchNorm, adapters, tied weights."""

from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.optim import OPTIMIZERS, make_optimizer

NAMES = sorted(OPTIMIZERS)
BASED = [name for name in NAMES if OPTIMIZERS[name].has_base and OPTIMIZERS[name].clean_first]


class Normed(nn.Module):
    """A linear layer and a normalisation that keeps statistics."""

    def __init__(self, layer):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 4)
        self.norm = layer(4)
        self.x = torch.randn(8, 3)

    def closure(self):
        self.zero_grad()
        loss = (self.norm(self.linear(self.x)) - 1.0).pow(4).mean()
        loss.backward()
        return loss.detach()

    def statistics(self):
        return [buffer.clone() for buffer in self.norm.buffers()]


@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.SyncBatchNorm])
@pytest.mark.parametrize("name", BASED)
def test_statistics_after_a_step_are_those_of_one_forward_pass(make, name, layer):
    """SyncBatchNorm runs on a CPU as long as there is one process."""
    reference, problem = Normed(layer), Normed(layer)
    optimizer = make(name, problem)
    reference.closure()

    optimizer.step(problem.closure)

    for a, b in zip(problem.statistics(), reference.statistics(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_synchronised_statistics_move_once_in_a_step(make, name):
    problem = Normed(nn.SyncBatchNorm)

    make(name, problem).step(problem.closure)

    assert int(problem.norm.num_batches_tracked) == 1


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"sam_on"}))
def test_adapters_on_frozen_weights_are_all_that_moves(make, name):
    """Low-rank adapters: the second factor starts at zero, so the first has no gradient yet."""
    torch.manual_seed(0)
    frozen = nn.Linear(3, 3).requires_grad_(False)
    down, up = nn.Linear(3, 2, bias=False), nn.Linear(2, 3, bias=False)
    nn.init.zeros_(up.weight)
    x, points = torch.randn(8, 3), []

    def closure():
        optimizer.zero_grad()
        points.append(frozen.weight.detach().clone())
        loss = (frozen(x) + up(down(x)) - 1.0).square().mean()
        loss.backward()
        return loss.detach()

    optimizer = make(name, nn.ModuleList([frozen, down, up]))
    before = [frozen.weight.clone(), down.weight.detach().clone(), up.weight.detach().clone()]

    for _ in range(3):
        optimizer.step(closure)

    assert all(torch.equal(point, before[0]) for point in points)
    assert torch.equal(frozen.weight, before[0])
    assert not torch.equal(down.weight.detach(), before[1])
    assert not torch.equal(up.weight.detach(), before[2])


def test_a_tied_weight_is_perturbed_once():
    """Both uses of the weight see one perturbation of length rho."""
    weight = nn.Parameter(torch.tensor([[0.5]], dtype=torch.float64))
    layers = nn.ModuleList([nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)])
    for layer in layers:
        layer.weight = weight
    seen = []

    def closure():
        weight.grad = None
        seen.append(float(weight.detach()))
        loss = layers[1](layers[0](torch.ones(1, 1, dtype=torch.float64))).sum()
        loss.backward()
        return loss.detach()

    optimizer = make_optimizer("sam", layers, base=partial(torch.optim.SGD, lr=0.1), rho=0.25)

    optimizer.step(closure)

    # The loss is w^2, so the step is -0.1 * 2 * 0.75.
    assert seen == pytest.approx([0.5, 0.75], abs=1e-9)
    assert float(weight.detach()) == pytest.approx(0.35, abs=1e-9)
