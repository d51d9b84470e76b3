r"""Gradients taken at a perturbed point: the common form of SAM and its descendants.

    g  = grad L(w)                      clean gradient
    e  = perturbation(g)                perturbation of the selected parameters
    g' = grad L(w + e)                  perturbed gradient of all parameters
    d  = combine(g, g')                 what the base optimizer is given, at w

A method chooses the perturbation, the combination, or both.

References:
    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization",
    ICLR 2021, arXiv:2010.01412.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.norms import joint_norm
from mbrl_flat.optim.perturbation import Perturbation
from mbrl_flat.optim.perturbing_optimizer import MethodState, RadiusOptimizer, SelectedParams
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.snapshots import BufferSnapshot
from mbrl_flat.optim.synchronization import is_distributed
from mbrl_flat.optim.with_base import HasBase


class PerturbationRule(Protocol):
    """Perturbation at which the gradient is evaluated again."""

    def __call__(self, selection: SelectedParams) -> Perturbation:
        """Return one perturbation for each parameter; their gradients stay as they are."""
        ...


def gradient_ascent(selection: SelectedParams) -> Perturbation:
    """``rho g / (|g| + 1e-12)``."""
    return selection.along(selection.grads)


@dataclass(kw_only=True, eq=False, repr=False)
class SharpnessAware(HasBase, RadiusOptimizer):
    """Base optimizer on gradients that are taken at a perturbed point.

    Attributes:
        rho: Radius, at least 0, or a schedule of it.
        unselected_gradient: Parameters that a step does not perturb take their gradient from the
            second evaluation (``perturbed``) or from the first (``clean``). With
            ``only=[encoder, dynamics]``, ``clean`` trains the heads as the base alone would.
        needs_clean: Whether ``combine`` reads the clean gradient. If not, the first evaluation
            forms only selected gradients. A closure that cannot be evaluated so, such as one that
            also differentiates a loss of other parameters alone, is evaluated once more with all
            gradients, and only so from then on.
    """

    rho: Radius = 0.05
    unselected_gradient: Literal["perturbed", "clean"] = "perturbed"

    needs_clean = False

    def __init_subclass__(cls, **settings: Any) -> None:
        """Methods whose final gradient has no part of the clean one may take that one cheaply."""
        super().__init_subclass__(**settings)
        cls.reduces_ascent = not cls.needs_clean

    def __post_init__(self, params: Any, *base: Any) -> None:
        """Begin outside of a step."""
        super().__post_init__(params, *base)
        self.configure({})
        self._restricts = True
        self._open: ExitStack | None = None

    def _check(self) -> None:
        if self.unselected_gradient == "clean":
            self.reduces_ascent = False  # some descend along the first gradient
        super()._check()

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """The perturbation of the selected parameters; SAM's unless a method replaces it."""
        return gradient_ascent(selection)

    def combine(
        self, clean: list[Tensor], perturbed: list[Tensor], method_state: list[MethodState]
    ) -> list[Tensor]:
        """Combine the gradients of parameters that have both, entry by entry.

        Args:
            clean: Gradients at the weights; not to be written to.
            perturbed: Gradients at the perturbed point; may be written to and returned.
            method_state: What the method keeps for each parameter between steps.

        Returns:
            The final gradients.
        """
        del clean, method_state
        return perturbed

    @property
    def reported(self) -> int:
        """Index of the first evaluation in float32 on the whole batch: the last of two."""
        return -1 if self._reduced and self._perturbs else 0

    def configure(self, options: Mapping[str, Any]) -> None:
        """Change step options; those that are left out stay as they are."""
        super().configure(options)
        self.clean_first = self.ascent_fraction == 1.0

    @property
    def _reduced(self) -> bool:
        return self.ascent_precision == "bfloat16" or self.ascent_fraction < 1.0

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        chosen = self._chosen_now()
        if not chosen:
            return evaluate()
        loss = self._first(evaluate, chosen)
        selection = self._selected(chosen)
        if not selection.params or not selection.are_finite(loss):
            # The loss depends on nothing that was selected, or is kept out of the method's state:
            # the driver says what is not finite.
            return evaluate() if self._reduced and bool(loss.isfinite()) else loss
        clean = self._clean_grads(chosen)
        with self.backup.perturbed(selection.params, self._perturbation(selection)):
            # The only other hold on the clean gradients; their space is that of the next ones.
            del selection
            self.zero_grad(set_to_none=True)
            perturbed_loss = self._evaluate_perturbed(evaluate)
        self._combine(clean, chosen)
        if self._reduced:
            return perturbed_loss
        self.last["perturbed_gap"] = perturbed_loss - loss
        return loss

    def _evaluate_perturbed(self, evaluate: ClosureEvaluator) -> Tensor:
        return evaluate()

    def _perturbation(self, selection: SelectedParams) -> Perturbation:
        return self._report(selection.params, self.perturbation(selection))

    def _first(self, evaluate: ClosureEvaluator, chosen: Mapping[nn.Parameter, float]) -> Tensor:
        """Evaluate at the weights; skip gradients that nobody reads if the closure allows it."""
        how: dict[str, Any] = {"fraction": self.ascent_fraction}
        if self.ascent_precision == "bfloat16":
            how["dtype"] = torch.bfloat16
        # Data-parallel reducers wait for the gradient of every parameter.
        keeps = self.needs_clean or self.unselected_gradient == "clean"
        if keeps or not self._restricts or is_distributed():
            return evaluate(**how)
        skipped = [p for p in self._params() if p.requires_grad and p not in chosen]
        if not skipped:
            return evaluate(**how)
        with _without_gradient(skipped):
            loss = evaluate.try_restricted(list(chosen), **how)
        if loss is None:
            # Once is enough: what is undone costs as much as what is skipped may save.
            self._restricts = False
            return evaluate(**how)
        return loss

    def _clean_grads(self, chosen: Mapping[nn.Parameter, float]) -> dict[nn.Parameter, Tensor]:
        """Gradients of the first evaluation that the final one is made of."""
        if self.needs_clean:
            return self._grads()
        if self.unselected_gradient == "perturbed":
            return {}
        return {param: grad for param, grad in self._grads().items() if param not in chosen}

    def _combine(
        self, clean: dict[nn.Parameter, Tensor], chosen: Mapping[nn.Parameter, float]
    ) -> None:
        both = [p for p in self._params_with_grad() if p in clean]
        if self.unselected_gradient == "clean":
            for param in clean.keys() - chosen.keys():
                param.grad = clean[param]
            both = [param for param in both if param in chosen]
        if not self.needs_clean or not both:
            return
        perturbed = [p.grad for p in both if p.grad is not None]
        if not bool(joint_norm(perturbed).isfinite()):
            return
        method_state = [self.method_state.setdefault(p, {}) for p in both]
        final = self.combine([clean[p] for p in both], perturbed, method_state)
        for param, grad in zip(both, final, strict=True):
            param.grad = grad

    @torch.no_grad()
    def first_step(self) -> None:
        """Perturb the weights along the gradients that ``loss.backward()`` left, and zero these.

        For loops that cannot give a closure: ``backward``, ``first_step``, ``backward``,
        ``second_step``. Kept: exact restoration of the weights, the check for NaN, clipping, and
        buffers that move once a step where the optimizer was given a module. Lost: the second
        forward pass draws other random numbers, such as dropout masks. ``every`` holds.

        Raises:
            UserError: If the weights are perturbed already, or no gradient is there.
        """
        if self._open is not None:
            raise UserError("first_step was called twice; call second_step after it.")
        if not self._params_with_grad():
            raise UserError("first_step needs gradients; call loss.backward() before it.")
        self._begin()
        self._open, self._clean, self._chosen_then = ExitStack(), {}, self._chosen_now()
        selection = self._selected(self._chosen_then)
        if selection.params and bool(selection.grad_norm.isfinite()):
            self._clean = self._clean_grads(self._chosen_then)
            self._open.callback(BufferSnapshot(self._statistics).rewind)
            moved = self.backup.perturbed(selection.params, self._perturbation(selection))
            self._open.enter_context(moved)
        self.zero_grad(set_to_none=True)

    @torch.no_grad()
    def second_step(self) -> None:
        """Restore the weights and make the step with the gradients at the perturbed point.

        Raises:
            UserError: If ``first_step`` was not called before.
            NonFiniteError: If the gradient is not finite and ``on_nonfinite=raise``.
        """
        if self._open is None:
            raise UserError("second_step was called without first_step before it.")
        self._open.close()
        self._open = None
        self._combine(self._clean, self._chosen_then)
        self._clean, self._chosen_then = {}, {}
        self._finish(torch.zeros(()), 2)

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "restricts": self._restricts}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        super()._load_own_state(state)
        self._restricts = bool(state.get("restricts", True))


@dataclass(kw_only=True, eq=False, repr=False)
class RuleSAM(SharpnessAware):
    """SAM with a perturbation of the caller's.

    Attributes:
        rule: The perturbation.
    """

    rule: PerturbationRule = gradient_ascent

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """That of the rule."""
        return self.rule(selection)


@contextmanager
def _without_gradient(params: Sequence[nn.Parameter]) -> Iterator[None]:
    for param in params:
        param.requires_grad_(False)
    try:
        yield
    finally:
        for param in params:
            param.requires_grad_(True)
