"""Evaluate one closure several times in a step, with everything but the weights held fixed.

Two evaluations of a loss differ by more than the weights if dropout draws another mask, a latent
is sampled anew, or BatchNorm moves its statistics in between. Then the difference of their
gradients says something about the noise, not about the sharpness.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook

from mbrl_flat.errors import UserError
from mbrl_flat.optim.synchronization import is_distributed

Closure = Callable[[], Tensor]
"""Zero the gradients, compute the loss, call backward, return the scalar loss."""

CLOSURE = "give a closure that zeroes the gradients, computes the loss, calls backward, returns it."
"""What to tell a user whose closure is none."""


class RNGSnapshot:
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


_watching: "list[BatchNormSnapshot]" = []


def _before_forward(module: nn.Module, args: Any) -> None:
    """Tell who is watching that a layer is about to run; compiled code holds nothing of this."""
    del args
    if not torch.compiler.is_compiling():
        for statistics in _watching:
            statistics.remember(module)


# The hook has one number for good, and is taken in and out under it: a compiler that finds a hook
# compiles for its number, and would compile again for every new one.
_hook = register_module_forward_pre_hook(_before_forward)
_hooks = cast(dict[int, Any], _hook.hooks_dict_ref())
_hook.remove()


class BatchNormSnapshot:
    """The running statistics of normalisation layers at one moment, to go back to.

    Args:
        known: Buffers to save in any case: those of layers within compiled code, which no
            hook sees.
    """

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        self._known = [(buffer, buffer.clone()) for buffer in known]
        self._seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Remember those of every layer that runs in the body, as they are before it runs."""
        _watching.append(self)
        _hooks[_hook.id] = _before_forward
        try:
            yield
        finally:
            _watching.remove(self)
            if not _watching:
                _hook.remove()

    def remember(self, module: nn.Module) -> None:
        """Copy the statistics of a layer unless that was done before."""
        if isinstance(module, _NormBase) and module.training and module not in self._seen:
            self._seen[module] = [(buffer, buffer.clone()) for buffer in module.buffers()]

    @torch.no_grad()
    def rewind(self) -> None:
        """Set the statistics to this moment."""
        for buffers in [*self._seen.values(), self._known]:
            for buffer, saved in buffers:
                buffer.copy_(saved)


@contextmanager
def frozen_statistics(known: Sequence[Tensor] = ()) -> Iterator[None]:
    """Undo what forward passes in the body do to the running statistics of normalisation layers.

    BatchNorm and SyncBatchNorm still normalise by the statistics of the batch, as in training.

    Args:
        known: See ``BatchNormSnapshot``.
    """
    statistics = BatchNormSnapshot(known)
    try:
        with statistics.watched():
            yield
    finally:
        statistics.rewind()


class NoGradientError(UserError):
    """A closure left no gradient in any parameter that is trained."""


class ClosureEvaluator:
    """A loss to be evaluated any number of times within one optimizer step.

    Args:
        closures: One for each micro-batch; loss and gradient are the means over them.
        params: Whose gradients the closures leave behind.
        same_rng: Start every evaluation from the random streams of the first one.
        frozen_batchnorm: Let only the first evaluation move running statistics.
        statistics: Those that are known beforehand; others are found as layers run.
        after: Applied to the loss after each evaluation; may change the gradients.

    Attributes:
        count: Gradient evaluations so far, without an attempt that was undone.
        calls: Calls of closures so far, those of such an attempt too.
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
        self._before = RNGSnapshot() if same_rng else None
        self._after: RNGSnapshot | None = None
        self.count = 0
        self.calls = 0

    def __call__(self, wanted: Sequence[Tensor] = ()) -> Tensor:
        """Evaluate at the current weights; gradients are left in ``.grad``.

        Args:
            wanted: Parameters that have to have one then.

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
        held = frozen_statistics(self._statistics) if frozen else nullcontext()
        with torch.enable_grad(), held:
            loss = self._evaluate()
        if any(param.grad is None for param in wanted):
            raise NoGradientError(f"The closure left a parameter without gradient; {CLOSURE}")
        self.count += 1
        return loss if self._after_each is None else self._after_each(loss)

    def try_restricted(self, wanted: Sequence[Tensor]) -> Tensor | None:
        """Make the first evaluation while some parameters take no gradient.

        Args:
            wanted: Parameters whose gradient is needed.

        Returns:
            The loss, or ``None`` if the closure cannot do without the other gradients: it
            differentiates something that depends on none of the wanted, or leaves one of these
            without a gradient, as re-entrant checkpoints do where their input takes none. Random
            streams and running statistics are then as before.

        Raises:
            RuntimeError: If the closure fails for another reason.
        """
        streams, statistics = self._before or RNGSnapshot(), BatchNormSnapshot(self._statistics)
        try:
            with statistics.watched():
                return self(wanted)
        except NoGradientError:
            pass
        except RuntimeError as error:
            # torch has no type for it: "element 0 of tensors does not require grad and does not
            # have a grad_fn" and its like.
            if not re.search("(does not|doesn't) require grad", str(error)):
                raise
        streams.rewind()
        statistics.rewind()
        return None

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
        self.calls += 1
        # Under autocast around the step, casts of the weights as they were before outlive a move.
        torch.clear_autocast_cache()
        loss: Any = closure()
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise UserError(f"The closure returned {shape} and not a scalar loss; {CLOSURE}")
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

    def finish(self) -> None:
        """Leave the random streams where a single evaluation would have left them."""
        if self._after is not None:
            self._after.rewind()


def kept(grad: Tensor) -> Tensor:
    """Hold a gradient in such a way that the next evaluation leaves it as it is.

    That of a data-parallel reducer may be part of its buckets, which it fills anew.

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
