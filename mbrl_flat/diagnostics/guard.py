"""Measure a model and leave it bit-identical."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mbrl_flat.runtime.seeding import restored_rng


@contextmanager
def preserve_state(*modules: nn.Module, params: Iterable[Tensor] = ()) -> Iterator[None]:
    """Put everything back on exit, also when the body raises.

    That is: the values of parameters and buffers, which of them require a gradient, their
    ``.grad`` (the same tensors as before, which the body never sees), training or evaluation
    mode, and every global random stream. Within the body all ``.grad`` are ``None``.

    Args:
        modules: Whose parameters, buffers and modes are kept.
        params: Further parameters, for models of which nothing else is known.
    """
    tensors = {id(p): p for module in modules for p in module.parameters()}
    tensors |= {id(p): p for p in params}
    held = list(tensors.values())
    grads = [p.grad for p in held]
    required = [p.requires_grad for p in held]
    buffers = [buffer for module in modules for buffer in module.buffers()]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    with torch.no_grad():
        values = [tensor.clone() for tensor in (*held, *buffers)]
    for p in held:
        p.grad = None
    try:
        with restored_rng():
            yield
    finally:
        for part, training in modes:
            part.training = training
        with torch.no_grad():
            for tensor, value in zip((*held, *buffers), values, strict=True):
                tensor.copy_(value)
        for p, grad, requires in zip(held, grads, required, strict=True):
            p.grad = grad
            p.requires_grad_(requires)
