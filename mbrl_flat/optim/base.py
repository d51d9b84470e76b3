"""What every optimizer of the registry is: ``torch.optim.Optimizer`` with ``step(closure)``.

One driver serves all of them, plain Adam included, so that two runs which differ in the optimizer
differ in nothing else: evaluate (as often as the method wants) -> check that all is finite ->
clip once, jointly, on the final gradient -> step of the base optimizer.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.errors import NonFiniteError, UserError
from mbrl_flat.optim.closure_evaluator import CLOSURE, Closure, ClosureEvaluator, GradientMean
from mbrl_flat.optim.loss_scaling import report_to, unscale
from mbrl_flat.optim.norms import describe_nonfinite, joint_norm
from mbrl_flat.optim.parameters import ParamGroup, Params, as_groups, scale_lr
from mbrl_flat.optim.schedules import put_schedules_back, without_schedules
from mbrl_flat.optim.state_checks import check_groups, check_state, identity
from mbrl_flat.optim.step_options import StepOptions, check_settings
from mbrl_flat.optim.synchronization import average_gradients

BaseFactory = Callable[[list[ParamGroup]], torch.optim.Optimizer]
"""Makes the optimizer that takes the final gradient, such as ``partial(Adam, lr=3e-4)``."""


class OptimizerFactory(Protocol):
    """Makes an optimizer of the registry; what an agent is given."""

    def __call__(
        self, params: list[ParamGroup], *, max_grad_norm: float | None = None
    ) -> "FlatOptimizer":
        """Build it for these groups."""
        ...


class FlatOptimizer(torch.optim.Optimizer):
    """The driver; on its own it is the base optimizer behind the common interface.

    ``param_groups`` and ``state`` are those of the base, so learning-rate schedulers attached to
    this object drive the base.

    Args:
        params: Parameters, named parameters or groups.
        base: Makes the optimizer that takes the final gradient.
        max_grad_norm: Bound on the joint norm of the final gradient.
        on_nonfinite: ``raise`` a ``NonFiniteError``, or ``skip`` the step and count it.
        same_rng: Every evaluation of one step draws the same random numbers.
        frozen_batchnorm: Only the first evaluation of a step moves running statistics.
        micro_batches: What several closures mean; see ``StepOptions``.
        sync: What is averaged over processes; see ``StepOptions``.
        compiled: Closures run compiled code; see ``StepOptions``.

    Attributes:
        last: Report of the last step, 0-dimensional tensors or floats: ``evaluations``,
            ``grad_norm`` (before clipping), ``perturbation_norm``, ``perturbed_gap`` (loss at the
            perturbed point minus the clean loss), ``cosine`` (between this perturbation and the
            one before) and ``skipped`` (steps so far). Every optimizer has the same keys.
        clean_first: Whether the first evaluation of a step is at the weights before it.
        refuses_local: Why ``sync=local`` is refused; empty if it is not.
        method: Name in the registry; empty if it was not made by that.
    """

    clean_first = True
    refuses_local = ""
    method = ""

    def __init__(
        self,
        params: Params,
        *,
        base: BaseFactory,
        max_grad_norm: float | None = None,
        on_nonfinite: Literal["raise", "skip"] = "raise",
        same_rng: bool = True,
        frozen_batchnorm: bool = True,
        micro_batches: Literal["replay", "each"] = "replay",
        sync: Literal["none", "local", "global"] = "none",
        compiled: bool = False,
    ) -> None:
        settings: StepOptions = {
            "max_grad_norm": max_grad_norm,
            "on_nonfinite": on_nonfinite,
            "same_rng": same_rng,
            "frozen_batchnorm": frozen_batchnorm,
            "micro_batches": micro_batches,
            "sync": sync,
            "compiled": compiled,
        }
        self._check_settings(settings)
        groups = as_groups(params)
        self._statistics = [buffer for group in groups for buffer in group.pop("statistics", [])]
        self.base = base(groups)
        self._adopting = True
        super().__init__(self.base.param_groups, self.base.defaults)
        self._adopting = False
        self._share()
        for group in self.param_groups:
            scale_lr(group)
        self.max_grad_norm = max_grad_norm
        self.on_nonfinite = on_nonfinite
        self.same_rng = same_rng
        self.frozen_batchnorm = frozen_batchnorm
        self.micro_batches = micro_batches
        self.sync = sync
        self.compiled = compiled
        self.steps = 0
        self.skipped = 0
        self.last: dict[str, Tensor | float] = {}

    def _check_settings(self, settings: StepOptions) -> None:
        check_settings(settings)
        if settings.get("sync") == "local" and self.refuses_local:
            raise UserError(self.refuses_local)

    def configure(self, settings: StepOptions) -> None:
        """Change settings; those that are left out stay as they are."""
        self._check_settings(settings)
        for name, value in settings.items():
            setattr(self, name, value)

    def _hold(self, statistics: list[Tensor]) -> None:
        """Take over a list of running statistics that is shared and may grow."""
        self._statistics = statistics

    def _share(self) -> None:
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    @torch.no_grad()
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        closure: Closure | Sequence[Closure] | None = None,
        *,
        scaler: GradScaler | None = None,
    ) -> Tensor:
        """Evaluate the closure as often as the method wants and make one step.

        Args:
            closure: Zeroes the gradients, computes the loss, calls backward, returns it. Several,
                one for each micro-batch, stand for the mean of their losses.
            scaler: The one by which the closure scales what it differentiates, for float16; the
                loss it returns is not scaled.

        Returns:
            The loss at the weights before the step. Methods registered with
            ``clean_first=False`` never evaluate there and return the mean of what they saw.

        Raises:
            UserError: If the closure is missing, returns no loss or leaves no gradient.
            NonFiniteError: If loss or gradient is not finite and ``on_nonfinite=raise``.
        """
        if not closure:
            raise UserError(f"{type(self).__name__}.step was given {closure!r}; {CLOSURE}")
        if scaler is not None and not scaler.is_enabled():
            scaler = None
        self.last = {"perturbation_norm": 0.0, "perturbed_gap": 0.0, "cosine": 0.0}
        loss, count = self._final_gradient(closure, scaler)
        self.steps += 1
        params = self._params_with_grad()
        norm = joint_norm([p.grad for p in params if p.grad is not None])
        self.last |= {"evaluations": float(count), "grad_norm": norm}
        if scaler is not None:
            report_to(scaler, norm)
        if self._is_finite(loss, norm, overflow_is_normal=scaler is not None):
            if self.max_grad_norm is not None:
                nn.utils.clip_grads_with_norm_(params, self.max_grad_norm, norm)
            self._apply()
        self.last["skipped"] = float(self.skipped)
        return loss

    def _final_gradient(
        self, closure: Closure | Sequence[Closure], scaler: GradScaler | None
    ) -> tuple[Tensor, int]:
        """Leave the final gradient in ``.grad``; return the loss and the number of evaluations."""
        closures = list(closure) if isinstance(closure, Sequence) else [closure]
        params = self._params()
        if self.micro_batches == "replay" or len(closures) == 1:
            loss, count = self._evaluated(closures, params, scaler)
        else:
            mean, losses, count = GradientMean(len(closures)), [], 0
            for part in closures:
                part_loss, part_count = self._evaluated([part], params, scaler)
                losses.append(part_loss)
                count += part_count
                mean.add(params)
            mean.store()
            loss = torch.stack(losses).mean()
        if self.sync == "local":
            loss = average_gradients(params, loss)
        return loss, count

    def _evaluated(
        self, closures: list[Closure], params: list[nn.Parameter], scaler: GradScaler | None
    ) -> tuple[Tensor, int]:
        def after(loss: Tensor) -> Tensor:
            if scaler is not None:
                unscale(scaler, params)
            return average_gradients(params, loss) if self.sync == "global" else loss

        evaluate = ClosureEvaluator(
            closures,
            params,
            same_rng=self.same_rng,
            frozen_batchnorm=self.frozen_batchnorm,
            statistics=self._statistics,
            after=after,
        )
        try:
            loss = self._gradient(evaluate)
        finally:
            evaluate.finish()
        return loss, evaluate.calls

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        """Leave the final gradient in ``.grad`` and return the clean loss; methods replace this."""
        return evaluate()

    def _apply(self) -> None:
        """Move the weights along the final gradient; methods with a base keep this."""
        self.base.step()

    def _params(self) -> list[nn.Parameter]:
        return [p for group in self.param_groups for p in group["params"]]

    def _params_with_grad(self) -> list[nn.Parameter]:
        return [p for p in self._params() if p.grad is not None]

    def _is_finite(self, loss: Tensor, norm: Tensor, *, overflow_is_normal: bool) -> bool:
        if bool(torch.isfinite(loss) & torch.isfinite(norm)):
            return True
        # A loss scale that was too large is how the scaler finds the right one.
        overflow = overflow_is_normal and bool(torch.isfinite(loss))
        if self.on_nonfinite == "raise" and not overflow:
            raise NonFiniteError(describe_nonfinite(loss, self.param_groups))
        self.skipped += 1
        return False

    def evaluation_params(self) -> AbstractContextManager[None]:
        """Weights to act, evaluate and measure with, for the length of the context."""
        return nullcontext()

    def add_param_group(self, param_group: ParamGroup) -> None:
        """Add a group, as in torch; its ``lr_scale`` and ``rho`` count as from now."""
        if self._adopting:
            super().add_param_group(param_group)
            return
        self._statistics += param_group.pop("statistics", [])
        self.base.add_param_group(param_group)
        scale_lr(self.param_groups[-1])

    def state_dict(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """State of the base, what the method itself keeps between steps, and whose both are."""
        base = without_schedules(self.base.state_dict())
        own = {"base": base, "perturbation": self._own_state()}
        return {**own, **identity(self._made_by(), self.param_groups)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Restore what ``state_dict`` gave.

        Args:
            state_dict: State of the same method and base with the same groups. If it is that of
                something else, a ``UserError`` says so and nothing is changed.
        """
        self._check_state(state_dict)
        radii = [group.get("rho") for group in self.param_groups]
        self.base.load_state_dict(dict(state_dict["base"]))
        self._share()
        put_schedules_back(self.param_groups, radii)
        self._load_own_state(state_dict["perturbation"])

    def _check_state(self, state: Mapping[str, Any]) -> None:
        entries = self._own_state()
        check_state(state, made_by=self._made_by(), groups=self.param_groups, entries=entries)
        if isinstance(self.base, FlatOptimizer):
            self.base._check_state(state["base"])
        else:
            check_groups(state["base"], self.param_groups)

    def _made_by(self) -> list[str]:
        """Names of the method and of its base."""
        inner = self.base
        base = inner._made_by() if isinstance(inner, FlatOptimizer) else [type(inner).__name__]
        plain = type(self) is FlatOptimizer and not self.method
        return base if plain else [self.method or type(self).__name__, *base]

    def _own_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "skipped": self.skipped}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self.steps = int(state["steps"])
        self.skipped = int(state["skipped"])

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps only three attributes, which would drop the base from copies and pickles. The
        # step that a scheduler of the learning rate sets on an instance is that of the original.
        return {name: value for name, value in self.__dict__.items() if name != "step"}
