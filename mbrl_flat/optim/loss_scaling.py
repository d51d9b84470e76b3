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

``scaler.update()`` after that is not needed. bfloat16 needs none of this.
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


class Verdict:
    """Tells a scaler whether final gradients are finite, in true units."""

    def __init__(self) -> None:
        # The scaler looks at gradients of an optimizer, so it is shown one that stands for all.
        self._final, self._spare = (
            torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.0) for _ in range(2)
        )

    def report(self, scaler: GradScaler, norm: Tensor) -> None:
        """Let the scaler grow or back off by the norm of the final gradient.

        A call of ``scaler.update()`` after the step finds a finite gradient, and changes nothing.
        """
        self._show(scaler, self._final, norm)
        scaler.update()
        self._show(scaler, self._spare, torch.zeros_like(norm))

    @staticmethod
    def _show(scaler: GradScaler, witness: torch.optim.Optimizer, norm: Tensor) -> None:
        param = witness.param_groups[0]["params"][0]
        param.data = torch.zeros_like(norm, dtype=torch.float32)
        param.grad = norm.detach().to(torch.float32).clone()
        scaler.unscale_(witness)
