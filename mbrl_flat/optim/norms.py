"""Norms and inner products over lists of tensors, taken as one long vector."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

ROW = 4096
"""Entries that one single-precision sum may run over on a CPU."""


def joint_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all entries of all tensors.

    Accurate to rounding for tensors of any size: long ones are summed row by row, since one running
    sum over millions of float32 entries comes out up to a ten-thousandth too low on a CPU.

    Args:
        tensors: Any number of tensors of any shape.

    Returns:
        A scalar; zero for no tensors.
    """
    return nn.utils.get_total_norm([_rows(t) for t in tensors]) if tensors else torch.zeros(())


def _rows(tensor: Tensor) -> Tensor:
    """A tensor of the same norm whose entries are few: norms of rows."""
    size = tensor.numel()
    if size <= 8 * ROW or tensor.device.type != "cpu":
        return tensor
    flat = tensor.detach().reshape(-1)
    whole = size - size % ROW
    norms = torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1)
    return norms if whole == size else torch.cat([norms, flat[whole:]])


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Inner product over all entries of all tensors, a scalar; zero for none."""
    if not a:
        return torch.zeros(())
    # A step that is made under autocast would have its products in half precision.
    with torch.autocast(a[0].device.type, enabled=False):
        pairs = zip(a, b, strict=True)
        parts = [torch.linalg.vecdot(x.flatten(), y.flatten()) for x, y in pairs]
        return torch.stack(parts).sum()


def clip_grads(
    groups: Sequence[Mapping[str, Any]], bound: float, *, scope: str, norm: Tensor | None = None
) -> None:
    """Scale gradients down to a bound on their norm, in place.

    Args:
        groups: Parameter groups; parameters without a gradient are left out.
        bound: Largest norm that gradients may have, above 0.
        scope: ``joint`` bounds the norm of all groups together, ``module`` that of each.
        norm: Joint norm of the gradients, if it is known.
    """
    parts = [[p for p in group["params"] if p.grad is not None] for group in groups]
    if scope == "joint":
        parts = [[param for part in parts for param in part]]
    for part in parts:
        grads = [param.grad for param in part if param.grad is not None]
        length = joint_norm(grads) if norm is None or scope == "module" else norm
        # Below the bound the factor is 1; to ask an accelerator would make it wait.
        if length.device.type != "cpu" or not float(length) < 0.999 * bound:
            nn.utils.clip_grads_with_norm_(part, bound, length)


def is_finite(loss: Tensor, grads: Sequence[Tensor]) -> bool:
    """Whether a loss and all gradients that came with it are finite."""
    return bool(torch.isfinite(loss) & torch.isfinite(joint_norm(grads)))


def describe_nonfinite(loss: Tensor, groups: Sequence[Mapping[str, Any]]) -> str:
    """Say what the loss is, and in which parameter groups a gradient is not finite."""
    bad = [
        str(group.get("flat_name", f"group {index}"))
        for index, group in enumerate(groups)
        if any(p.grad is not None and not p.grad.isfinite().all() for p in group["params"])
    ]
    where = f"; not finite: the gradient of {', '.join(bad)}" if bad else ""
    return f"The loss is {float(loss)}{where}."
