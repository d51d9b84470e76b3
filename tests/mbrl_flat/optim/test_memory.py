"""Bytes that optimizers hold, counted storage by storage as torch makes and frees them."""

from functools import partial

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mbrl_flat.optim import OPTIMIZERS, make_optimizer

WIDTH, DEPTH = 256, 12
PARAMS = DEPTH * WIDTH**2


SHORT = {"looksam": {"every": 1}, "entropy_sgd": {"inner_steps": 2}}
"""Settings with which four steps show all that a method does."""


class Meter(TorchDispatchMode):
    """Counts the bytes of storages that operations in the context made and that still live.

    Args:
        known: Tensors that do not count.
    """

    def __init__(self, known):
        super().__init__()
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._alive = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, self.held_bytes)
        return result

    @property
    def held_bytes(self):
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}
        return sum(size for _, size in self._alive.values())


def copies(name, **settings):
    """Most copies of the parameters that exist in a step besides weights, and those kept after it.

    The loss has no activations to speak of, so what is counted is gradients and the optimizer.
    """
    torch.manual_seed(0)
    params = [torch.nn.Parameter(0.1 * torch.randn(WIDTH, WIDTH)) for _ in range(DEPTH)]
    x = torch.randn(1, WIDTH)
    if OPTIMIZERS[name].has_base:
        settings["base"] = partial(torch.optim.Adam, lr=1e-3, fused=True)

    def closure():
        optimizer.zero_grad()
        loss = sum((x @ p).square().mean() for p in params)
        loss.backward()
        return loss.detach()

    with Meter(params) as meter:
        optimizer = make_optimizer(name, params, **settings)
        for _ in range(3):
            optimizer.step(closure)
        optimizer.zero_grad()
        between = meter.held_bytes
        meter.peak = 0
        optimizer.step(closure)
    return meter.peak / (4 * PARAMS), between / (4 * PARAMS)


ADAM = 3
"""Gradient and two moments."""
TENSOR = 1.6 / DEPTH
"""Room for intermediate results of the size of one tensor, and for numbers to log."""


def test_adam_holds_its_moments_and_the_gradient():
    peak, between = copies("adam")

    assert ADAM <= peak <= ADAM + TENSOR
    assert 2 <= between <= 2 + TENSOR


def test_sam_needs_one_copy_of_the_parameters_at_most():
    peak, between = copies("sam")

    assert peak <= ADAM + 1 + TENSOR
    assert between <= 2 + 1 + TENSOR


def test_momentum_sam_needs_no_memory_beyond_its_base():
    peak, between = copies("msam")

    assert peak <= ADAM + TENSOR
    assert between <= 2 + TENSOR


def test_momentum_sam_that_restores_exactly_needs_one_copy():
    peak, _ = copies("msam", restore="exact")

    assert ADAM + 1 <= peak <= ADAM + 1 + TENSOR


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"sgd", "sam_on", "functional_sam"}))
def test_a_method_needs_as_many_copies_as_its_entry_says(name):
    peak, _ = copies(name, **SHORT.get(name, {}))

    assert peak - ADAM == pytest.approx(OPTIMIZERS[name].memory, abs=0.4)
