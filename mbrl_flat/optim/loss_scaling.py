"""Loss scaling for float16: gradients in true units after every evaluation, one verdict a step.

``torch.amp.GradScaler.step`` refuses closures and unscales once an update. Here the closure scales
its loss itself, the optimizer divides what comes out after each evaluation, and the scaler is told
once whether the final gradient was finite::

    def closure():
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            loss = compute(batch)
        scaler.scale(loss).backward()
        return loss.detach()

    optimizer.step(closure, scaler=scaler)

bfloat16 needs none of this and is what we recommend.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler


def unscale(scaler: GradScaler, params: Sequence[Tensor]) -> None:
    """Divide the gradients by the scale, in place; infinities stay infinite."""
    grads = [p.grad for p in params if p.grad is not None]
    if grads:
        torch._foreach_mul_(grads, 1.0 / scaler.get_scale())


def report_to(scaler: GradScaler, norm: Tensor) -> None:
    """Let the scaler grow or back off by the norm of the final gradient, in true units."""
    # The scaler looks at gradients of an optimizer, so it is shown one that stands for all.
    witness = nn.Parameter(torch.zeros_like(norm, dtype=torch.float32))
    witness.grad = norm.detach().to(torch.float32).clone()
    scaler.unscale_(torch.optim.SGD([witness], lr=0.0))
    scaler.update()
