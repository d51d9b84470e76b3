"""Evaluate one closure several times in a step, with everything but the weights held fixed.

Two evaluations of a loss differ by more than the weights if dropout draws another mask, a latent
is sampled anew, or BatchNorm moves its statistics in between. Then the difference of their
gradients says something about the noise, not about the sharpness.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook

from mbrl_flat.errors import UserError

Closure = Callable[[], Tensor]
"""Zero the gradients, compute the loss, call backward, return the scalar loss."""

CLOSURE = "give a closure that zeroes the gradients, computes the loss, calls backward, returns it."
"""What to tell a user whose closure is none."""


class Streams:
    """A moment of Python's, NumPy's and torch's global random streams, to go back to."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002 - augmentations draw from it
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def rewind(self) -> None:
        """Set the streams to this moment."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


@contextmanager
def frozen_statistics(known: Sequence[Tensor] = ()) -> Iterator[None]:
    """Undo what forward passes in the body do to the running statistics of normalisation layers.

    BatchNorm and SyncBatchNorm still normalise by the statistics of the batch, as in training.

    Args:
        known: Statistics to hold in any case: those of layers within compiled code, which no hook
            sees.
    """
    saved_known = [buffer.clone() for buffer in known]
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def remember(module: nn.Module, args: Any) -> None:
        del args
        if isinstance(module, _NormBase) and module.training and module not in seen:
            seen[module] = [(buffer, buffer.clone()) for buffer in module.buffers()]

    handle = register_module_forward_pre_hook(remember)
    try:
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            for buffers in [*seen.values(), zip(known, saved_known, strict=True)]:
                for buffer, saved in buffers:
                    buffer.copy_(saved)


class Evaluations:
    """A loss to be evaluated any number of times within one optimizer step.

    Args:
        closures: One for each micro-batch; loss and gradient are the means over them.
        params: Whose gradients the closures leave behind.
        same_rng: Start every evaluation from the random streams of the first one.
        frozen_batchnorm: Let only the first evaluation move running statistics.
        statistics: Those that are known beforehand; others are found as layers run.
        after: Applied to the loss after each evaluation; may change the gradients.
    """

    def __init__(
        self,
        closures: Sequence[Closure],
        params: Sequence[Tensor],
        *,
        same_rng: bool,
        frozen_batchnorm: bool,
        statistics: Sequence[Tensor] = (),
        after: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._closures = closures
        self._params = params
        self._frozen_batchnorm = frozen_batchnorm
        self._statistics = statistics
        self._after_each = after
        self._before = Streams() if same_rng else None
        self._after: Streams | None = None
        self.count = 0

    def __call__(self) -> Tensor:
        """Evaluate at the current weights; gradients are left in ``.grad``.

        Returns:
            The loss, detached.
        """
        self.count += 1
        if self.count > 1 and self._before is not None:
            self._after = self._after or Streams()
            self._before.rewind()
        frozen = self.count > 1 and self._frozen_batchnorm
        held = frozen_statistics(self._statistics) if frozen else nullcontext()
        with torch.enable_grad(), held:
            loss = self._evaluate()
        return loss if self._after_each is None else self._after_each(loss)

    def _evaluate(self) -> Tensor:
        if len(self._closures) == 1:
            return self._called(self._closures[0])
        mean = GradientMean(len(self._closures))
        losses: list[Tensor] = []
        for closure in self._closures:
            losses.append(self._called(closure))
            mean.add(self._params)
        mean.store()
        return torch.stack(losses).mean()

    def _called(self, closure: Closure) -> Tensor:
        loss: Any = closure()
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise UserError(f"The closure returned {shape} and not a scalar loss; {CLOSURE}")
        trained = [param for param in self._params if param.requires_grad]
        if trained and all(param.grad is None for param in trained):
            raise UserError(f"The closure left no gradient in any parameter; {CLOSURE}")
        return loss.detach()

    def finish(self) -> None:
        """Leave the random streams where a single evaluation would have left them."""
        if self._after is not None:
            self._after.rewind()


class GradientMean:
    """Mean of the gradients of several evaluations, where a missing gradient counts as zero.

    Args:
        count: Number of evaluations.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._sums: dict[Tensor, Tensor] = {}

    def add(self, params: Sequence[Tensor]) -> None:
        """Take the gradients away from the parameters and add them."""
        for param in params:
            grad, param.grad = param.grad, None
            if grad is None:
                continue
            if param in self._sums:
                self._sums[param].add_(grad)
            else:
                self._sums[param] = grad

    def store(self) -> None:
        """Put the mean into ``.grad``."""
        for param, total in self._sums.items():
            param.grad = total if self._count == 1 else total.div_(self._count)
