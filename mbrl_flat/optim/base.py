"""What every optimizer of the registry is: ``torch.optim.Optimizer`` with ``step(closure)``.

One driver serves all of them, plain Adam included, so that two runs which differ in the optimizer
differ in nothing else: evaluate (as often as the method wants) -> check that all is finite ->
clip once, on the final gradient -> step of the base optimizer.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import InitVar, dataclass, field, fields
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.errors import NonFiniteError, UnknownNameError, UserError
from mbrl_flat.optim.base_optimizers import named_if_it_fails
from mbrl_flat.optim.closure_evaluator import Closure, ClosureEvaluator, GradientMean, check_call
from mbrl_flat.optim.groups import module_groups
from mbrl_flat.optim.loss_scaling import Verdict, unscale
from mbrl_flat.optim.norms import clip_grads, describe_nonfinite, joint_norm
from mbrl_flat.optim.parameters import (
    ParamGroup,
    Params,
    all_params,
    as_groups,
    claim_keys,
    keys_of,
    scale_lr,
)
from mbrl_flat.optim.saved_optimizer import SavedOptimizer
from mbrl_flat.optim.settings import check_settings
from mbrl_flat.optim.signature import SHARED
from mbrl_flat.optim.step_options import OPTION_NAMES, StepOptions
from mbrl_flat.optim.synchronization import average_gradients


class OptimizerFactory(Protocol):
    """Makes an optimizer of the registry; what an agent is given."""

    def __call__(
        self, params: list[ParamGroup], *, max_grad_norm: float | None = None
    ) -> "FlatOptimizer":
        """Build it for these groups."""
        ...


@dataclass(kw_only=True, eq=False, repr=False)
class FlatOptimizer(StepOptions, SavedOptimizer):
    """The driver of all methods; ``_gradient`` is what a method replaces.

    ``param_groups`` and ``state`` are those of the base, so learning-rate schedulers attached to
    this object drive the base.

    Attributes:
        params: Parameters, named parameters, groups, or the module itself: then ``only`` and the
            methods that choose by the kind of layer know which parameter is what.
        base: The optimizer that takes the final gradient, also as ``base_optimizer``.
        last: Report of the last step, 0-dimensional tensors or floats: ``evaluations``,
            ``grad_norm`` (before clipping), ``perturbation_norm``, ``perturbed_gap`` (loss at the
            perturbed point minus the clean loss), ``cosine`` (between this perturbation and the
            one before) and ``skipped`` (1 if the weights were not moved since the loss or the
            gradient was not finite, otherwise 0). Every optimizer has the same keys.
        skipped: Number of steps that were skipped so far.
        method: Name in the registry; empty if it was not made by that.
        clean_first: Whether the first evaluation of a step is at the weights before it, on the
            whole batch.
        refuses_local: Why ``sync=local`` is refused; empty if it is not.
        accumulates: Whether gradients from before a step may be part of its gradient.
        reduces_ascent: Whether the method takes ``ascent_precision`` and ``ascent_fraction``.
    """

    params: InitVar[Any] = field(kw_only=False)

    # Without annotations these are no settings.
    clean_first = True
    refuses_local = ""
    accumulates = True
    reduces_ascent = False
    _step_supports_amp_scaling = True  # so that a GradScaler tells its scale

    def __post_init__(self, params: Params | nn.Module, *base: Any) -> None:
        """Check the settings and make the base.

        Args:
            params: See the class.
            base: The base and its learning rate, for methods that have one.
        """
        self._check()
        groups = as_groups(module_groups(params) if isinstance(params, nn.Module) else params)
        self._statistics = [buffer for g in groups for buffer in g.pop("flat_buffers", [])]
        given = keys_of(groups)
        # ``base`` is an argument of the methods that have one; type checkers refuse to read it.
        self.base_optimizer = self._make_base(groups, *base)
        self.base: Any = self.base_optimizer
        self._adopting = True
        torch.optim.Optimizer.__init__(self, self.base.param_groups, self.base.defaults)
        self._adopting = False
        self._share()
        # A base may also put keys into its groups that its defaults lack.
        self._base_keys = self.base.defaults.keys() | (keys_of(self.param_groups) - given)
        for group in self.param_groups:
            claim_keys(group, self._base_keys)
            scale_lr(group)
        self.steps = 0
        self.skipped = 0
        self.last: dict[str, Tensor | float] = {}
        self._verdict: Verdict | None = None

    def _check(self) -> None:
        """Refuse settings out of their range; methods add what depends on several of them."""
        check_settings(self, where=self.method)
        self._check_options({name: getattr(self, name) for name in OPTION_NAMES})

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name in options:
            if name not in OPTION_NAMES:
                raise UnknownNameError("step option", name, OPTION_NAMES)
        check_settings(StepOptions, options)
        if options.get("sync") == "local" and self.refuses_local:
            raise UserError(self.refuses_local)
        reduced = options.get("ascent_precision") == "bfloat16" or (
            options.get("ascent_fraction", 1.0) < 1.0
        )
        if reduced and not self.reduces_ascent:
            name = self.method or type(self).__name__
            raise UserError(
                f"{name} descends along the gradient at the weights or takes none there, so "
                "ascent_precision and ascent_fraction do not apply; leave them at float32 and 1."
            )

    def _make_base(self, groups: list[ParamGroup], *base: Any) -> torch.optim.Optimizer:
        """Make the optimizer that takes the final gradient."""
        raise NotImplementedError(f"{type(self).__name__} is no method; take SAM or Adam")

    @property
    def reported(self) -> int:
        """Index of the evaluation of a step whose losses are to be reported."""
        return 0

    @classmethod
    def setting_defaults(cls) -> dict[str, Any]:
        """Names and defaults of the method's own settings, without the step options."""
        own = [item for item in fields(cls) if item.name not in OPTION_NAMES]
        # Those that all methods share stand last.
        return {f.name: f.default for f in sorted(own, key=lambda f: f.name in SHARED)}

    def own_settings(self) -> dict[str, Any]:
        """The method's own settings, without the step options."""
        return {name: getattr(self, name) for name in self.setting_defaults()}

    def __repr__(self) -> str:
        """Method, settings and base, such as ``SAM(rho=0.05, base=Adam(lr=0.001))``."""
        words = [f"{name}={value!r}" for name, value in self.own_settings().items()]
        inner = self.base
        lr = inner.param_groups[0].get("lr") if inner.param_groups else None
        words.append(
            f"base={inner!r}"
            if isinstance(inner, FlatOptimizer)
            else f"base={type(inner).__name__}(lr={lr})"
        )
        return f"{type(self).__name__}({', '.join(words)})"

    def configure(self, options: Mapping[str, Any]) -> None:
        """Change step options; those that are left out stay as they are."""
        self._check_options(options)
        for name, value in options.items():
            setattr(self, name, value)

    def _hold(self, statistics: list[Tensor]) -> None:
        """Take over a list of buffers that is shared and may grow."""
        self._statistics = statistics

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
            ``clean_first=False`` never evaluate there and return the mean of what they saw. With
            ``ascent_precision`` or ``ascent_fraction`` it is the loss at the perturbed point.

        Raises:
            UserError: If the closure is missing, returns no loss or leaves no gradient.
            NonFiniteError: If loss or gradient is not finite and ``on_nonfinite=raise``.
        """
        check_call(self, closure, scaler)
        if "grad_scale" in self.__dict__:
            raise UserError(
                "scaler.step(optimizer, closure) scales once, and a closure is evaluated several "
                "times; call optimizer.step(closure, scaler=scaler) instead."
            )
        if scaler is not None and not scaler.is_enabled():
            scaler = None
        self._begin()
        loss, count = self._final_gradient(cast(Closure, closure), scaler)
        self._finish(loss, count, scaler)
        return loss

    def _begin(self) -> None:
        self.last = {"perturbation_norm": 0.0, "perturbed_gap": 0.0, "cosine": 0.0}

    def _finish(self, loss: Tensor, count: int, scaler: GradScaler | None = None) -> None:
        """Check, clip and apply the final gradient."""
        self.steps += 1
        params = self._params_with_grad()
        norm = joint_norm([p.grad for p in params if p.grad is not None])
        self.last |= {"evaluations": float(count), "grad_norm": norm, "skipped": 1.0}
        if scaler is not None:
            self._verdict = self._verdict or Verdict()
            self._verdict.report(scaler, norm)
        if self._is_finite(loss, norm, overflow_is_normal=scaler is not None):
            if self.max_grad_norm is not None:
                clip_grads(self.param_groups, self.max_grad_norm, scope=self.clip_scope, norm=norm)
            self._apply()
            self.last["skipped"] = 0.0

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
            accumulates=self.accumulates,
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
        with named_if_it_fails(self.base):
            self.base.step()

    def _params(self) -> list[nn.Parameter]:
        return all_params(self.param_groups)

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
        group = as_groups([param_group])[0]
        self._statistics += group.pop("flat_buffers", [])
        self.base.add_param_group(group)
        claim_keys(self.param_groups[-1], self._base_keys)
        scale_lr(self.param_groups[-1])
