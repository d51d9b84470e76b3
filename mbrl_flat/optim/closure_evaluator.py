"""Evaluate one closure several times in a step, with everything but the weights held fixed.

Two evaluations of a loss differ by more than the weights if dropout draws another mask, a latent
is resampled, or BatchNorm moves its statistics in between. Then the difference of their
gradients says something about the noise, not about the sharpness.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.errors import UserError
from mbrl_flat.optim.snapshots import BufferSnapshot, RNGSnapshot, frozen_statistics
from mbrl_flat.optim.synchronization import is_distributed

Closure = Callable[[], Tensor]
"""Zero the gradients, compute the loss, call backward, return the scalar loss."""

CLOSURE = "give a closure that zeroes the gradients, computes the loss, calls backward, returns it."
"""What to tell a user whose closure is none."""


def check_call(owner: object, closure: object, scaler: object) -> None:
    """Refuse what is no closure, and no scaler, in the name of the optimizer that was given it."""
    closures = closure if isinstance(closure, list | tuple) else [closure]
    if not closures or not all(map(callable, closures)):
        raise UserError(f"{type(owner).__name__}.step was given {closure!r}; {CLOSURE}")
    if scaler is not None and not isinstance(scaler, GradScaler):
        raise UserError(f"scaler must be a torch.amp.GradScaler or None, got {scaler!r}.")


@runtime_checkable
class FractionClosure(Protocol):
    """A closure that can also be evaluated on the first part of its batch."""

    def __call__(self) -> Tensor:
        """What any closure does."""
        ...

    def on_fraction(self, fraction: float) -> Tensor:
        """Do the same for the first ``fraction`` of the batch, at least one example."""
        ...


@dataclass(frozen=True)
class ClosureOfPart:
    """A ``FractionClosure`` made of a function of the fraction.

    Attributes:
        evaluate: What a closure does, for the first part of the batch.
    """

    evaluate: Callable[[float], Tensor]

    def __call__(self) -> Tensor:
        """Evaluate on the whole batch."""
        return self.evaluate(1.0)

    def on_fraction(self, fraction: float) -> Tensor:
        """Evaluate on a part of it."""
        return self.evaluate(fraction)


class NoGradientError(UserError):
    """A closure left no gradient in any parameter that is trained."""


SENTINEL = 3e4
"""Gradient that shows whether a closure zeroes gradients; float16 holds it."""


class ClosureEvaluator:
    """A loss to be evaluated any number of times within one optimizer step.

    Args:
        closures: One for each micro-batch; loss and gradient are the means over them.
        params: Whose gradients the closures leave behind.
        same_rng: Start every evaluation from the random streams of the first one.
        frozen_batchnorm: Let only the first evaluation change buffers, and parameters that take no
            gradient.
        statistics: Buffers that are known beforehand; others are found as modules run.
        after: Applied to the loss after each evaluation; may change the gradients.
        accumulates: Whether gradients from before the step may be part of the first evaluation's.

    Attributes:
        count: Evaluations so far, without those that were undone.
        calls: Calls of closures so far, those of undone evaluations too.
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
        accumulates: bool = True,
    ) -> None:
        self._closures = closures
        self._params = params
        self._frozen_batchnorm = frozen_batchnorm
        self._statistics = statistics
        self._after_each = after
        self._accumulates = accumulates
        # Parameters without gradient that a forward pass moves, such as codebooks, are found by
        # their sums: a change of their data moves no version that torch counts.
        still = [param for param in params if not param.requires_grad] if frozen_batchnorm else []
        self._still = [(param, param.detach().sum()) for param in still]
        self._moved: list[Tensor] = []
        self._before = RNGSnapshot() if same_rng else None
        self._after: RNGSnapshot | None = None
        self.count = 0
        self.calls = 0

    def __call__(
        self,
        wanted: Sequence[Tensor] = (),
        *,
        fraction: float = 1.0,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Evaluate at the current weights; gradients are left in ``.grad``.

        Args:
            wanted: Parameters that have to have one then.
            fraction: Part of the batch to evaluate on.
            dtype: Type to compute in under autocast, if any.

        Returns:
            The loss, detached.

        Raises:
            NoGradientError: If no parameter has one, or one of the wanted has none.
        """
        first = self.count == 0
        if not first and self._before is not None:
            self._after = self._after or RNGSnapshot()
            self._before.rewind()
        frozen = self._frozen_batchnorm and not first
        known = [*self._statistics, *self._moved]
        unmoved = frozen_statistics(known) if frozen else nullcontext()
        device = self._params[0].device.type if self._params else "cpu"
        cast_to = nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)
        with torch.enable_grad(), unmoved, cast_to:
            loss = self._evaluate(fraction)
        if first:
            sums = [(param, param.detach().sum(), before) for param, before in self._still]
            self._moved = [param for param, after, before in sums if not torch.equal(after, before)]
        if any(param.grad is None for param in wanted):
            raise NoGradientError(f"The closure left a parameter without gradient; {CLOSURE}")
        self.count += 1
        return loss if self._after_each is None else self._after_each(loss)

    def try_restricted(self, wanted: Sequence[Tensor], **how: Any) -> Tensor | None:
        """Make the first evaluation while some parameters take no gradient.

        Args:
            wanted: Parameters whose gradient is needed.
            how: ``fraction`` and ``dtype`` of the evaluation.

        Returns:
            The loss, or ``None`` if the closure cannot do without the other gradients: it
            differentiates something that depends on none of the wanted, or leaves one of these
            without a gradient, as re-entrant checkpoints do where their input takes none. Random
            streams and buffers are then as before.

        Raises:
            RuntimeError: If the closure fails for another reason.
        """
        streams = self._before or RNGSnapshot()
        buffers = BufferSnapshot(self._statistics, restricted=wanted)
        try:
            with buffers.watched():
                return self(wanted, **how)
        except NoGradientError:
            pass
        except RuntimeError as error:
            # torch has no type for it: "element 0 of tensors does not require grad and does not
            # have a grad_fn" and its like.
            if not re.search("(does not|doesn't) require grad", str(error)):
                raise
        streams.rewind()
        buffers.rewind()
        return None

    def _evaluate(self, fraction: float) -> Tensor:
        if len(self._closures) == 1:
            return self._called(self._closures[0], fraction)
        mean = GradientMean(len(self._closures))
        losses: list[Tensor] = []
        for closure in self._closures:
            losses.append(self._called(closure, fraction))
            mean.add(self._params)
        mean.store()
        return torch.stack(losses).mean()

    def _called(self, closure: Closure, fraction: float) -> Tensor:
        marked = None if self._accumulates or self.calls else self._mark()
        self.calls += 1
        # Under autocast around the step, casts of the weights as they were before outlive a move.
        torch.clear_autocast_cache()
        if fraction < 1.0 and not isinstance(closure, FractionClosure):
            raise UserError(
                f"ascent_fraction={fraction} needs a closure with on_fraction(fraction); see "
                "mbrl_flat.optim.closure_evaluator.FractionClosure, or set ascent_fraction=1."
            )
        loss: Any = closure() if fraction == 1.0 else cast(Any, closure).on_fraction(fraction)
        if marked is not None:
            self._check_zeroed(*marked)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            given = repr(loss)
            if isinstance(loss, Tensor):
                given = f"{loss.dtype} of shape {tuple(loss.shape)}"
            raise UserError(f"The closure returned {given} and not a scalar loss; {CLOSURE}")
        trained = [param for param in self._params if param.requires_grad]
        if trained and all(param.grad is None for param in trained):
            raise NoGradientError(f"The closure left no gradient in any parameter; {CLOSURE}")
        if any(param.grad is not None and param.grad.layout != torch.strided for param in trained):
            raise UserError(
                "The closure left a sparse gradient, which the optimizers of mbrl_flat do not "
                "take; build the embedding with sparse=False."
            )
        # A copy: closures may return the same tensor every time, as CUDA graphs do.
        return loss.detach().clone()

    def _mark(self) -> tuple[Tensor, Tensor] | None:
        """Put a gradient that no loss has into the smallest parameter that has one."""
        held = [p for p in self._params if p.grad is not None and p.grad.layout == torch.strided]
        held = [p for p in held if p.numel()]
        if not held or is_distributed():
            return None
        param = min(held, key=Tensor.numel)
        assert param.grad is not None
        before, param.grad = param.grad, torch.full_like(param.grad, SENTINEL)
        return param, before

    def _check_zeroed(self, param: Tensor, before: Tensor) -> None:
        """Refuse a closure that adds to gradients from before the step."""
        grad = param.grad
        if grad is not None and bool(((grad - SENTINEL).abs() < 0.1 * SENTINEL).all()):
            param.grad = before
            raise UserError(
                "The closure adds to gradients from before the step, as a trainer does that "
                "accumulates gradients. A method that evaluates at perturbed weights cannot repeat "
                "the earlier backward passes: zero the gradients in the closure, and give the "
                "optimizer one closure for each micro-batch, step([closure_1, closure_2])."
            )

    def finish(self) -> None:
        """Leave the random streams where a single evaluation would have left them."""
        if self._after is not None:
            self._after.rewind()


def kept(grad: Tensor) -> Tensor:
    """Hold a gradient in such a way that the next evaluation leaves it as it is.

    That of a data-parallel reducer may be part of its buckets, which it fills again.

    Args:
        grad: What the evaluation left behind.

    Returns:
        Itself, or a copy in a run of several processes.
    """
    return grad.clone() if is_distributed() else grad


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
                self._sums[param] = kept(grad)

    def store(self) -> None:
        """Put the mean into ``.grad``."""
        for param, total in self._sums.items():
            param.grad = total if self._count == 1 else total.div_(self._count)
