r"""Functional-SAM: SAM that perturbs what the network computes, and not the loss of its outputs.

.. math::
    \epsilon = \rho \, g / (\|g\|_2 + 10^{-12}), \qquad
    d = \left(\nabla_w F(w + \epsilon)\right)^{\!\top} \nabla_F L(F(w))

with the outputs F of the network (logits). SAM's gradient has the derivative of the loss at
:math:`F(w + \epsilon)` instead, and lowers sharpness mostly by changing the size of the logits
where the loss is a cross-entropy. Losses that do not pass through F keep SAM's gradient.

How to choose rho:
    As for SAM.

References:
    Singh et al., "Avoiding Spurious Sharpness Minimization Broadens Applicability of SAM",
    ICML 2025, arXiv:2502.02407.

Deviations from the paper:
    None in the equations; there was no code of the authors to compare with. F is what the layers
    return that own the parameters named by ``outputs``; by default what the last module returns
    that the loss depends on. Compiled code hides its layers, so it is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from mbrl_flat.errors import UserError
from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.groups import selected
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.sharpness_aware import SharpnessAware


class OutputGradients:
    """Gradients of the loss at outputs of layers, recorded in one evaluation for another.

    Args:
        owned: Parameters whose layers count; all modules but losses if empty.
    """

    def __init__(self, owned: set[nn.Parameter]) -> None:
        self._owned = owned
        self._count = 0
        self._latest = -1
        self._in_backward = False
        self._recording = True
        self._saved: dict[int, Tensor] = {}

    @contextmanager
    def watched(self, *, recording: bool) -> Iterator[None]:
        """Record gradients in the body, or put those that were recorded in their place."""
        self._count, self._latest, self._recording = 0, -1, recording
        hook = register_module_forward_hook(self._after_forward)
        try:
            yield
        finally:
            hook.remove()

    @property
    def found(self) -> bool:
        """Whether a gradient was recorded."""
        return bool(self._saved)

    def _after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        del args
        if self._owned:
            counts = any(p in self._owned for p in module.parameters(recurse=False))
        else:
            counts = not type(module).__module__.startswith("torch.nn.modules.loss")
        if self._in_backward:
            # The forward pass of another micro-batch.
            self._in_backward, self._latest = False, -1
        if counts and isinstance(output, Tensor) and output.requires_grad and output.ndim:
            output.register_hook(partial(self._on_gradient, self._count))
            self._count += 1

    def _on_gradient(self, index: int, grad: Tensor) -> Tensor | None:
        if not self._recording:
            return self._saved.get(index)
        self._in_backward = True
        # Without a choice only the last module counts that the loss depends on.
        if self._owned or index > self._latest:
            if not self._owned:
                self._saved.pop(self._latest, None)
            self._saved[index] = grad.clone()
            self._latest = max(index, self._latest)
        return None


@register("functional_sam", paper="arXiv:2502.02407", evaluations=2, memory=1, neutral={"rho": 0.0})
class FunctionalSAM(SharpnessAware):
    """SAM on the network alone.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
        outputs: Parameters of the layers that return F, as in ``only``; null for the last module.
    """

    outputs: Sequence[str] | None = None

    def __post_init__(self, params: Any, *base: Any) -> None:
        """Find the layers of the outputs."""
        super().__post_init__(params, *base)
        self._gradients: OutputGradients | None = None
        if self.outputs is not None:
            selected(self.param_groups, self.outputs)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        super()._check_options(options)
        if options.get("ascent_fraction", 1.0) < 1.0:
            raise UserError(
                "functional_sam needs the outputs of the whole batch; set ascent_fraction=1."
            )

    def _first(self, evaluate: ClosureEvaluator, chosen: Mapping[nn.Parameter, float]) -> Tensor:
        del chosen
        if self.compiled:
            raise UserError("functional_sam cannot see layers in compiled code; set compile=false.")
        named = () if self.outputs is None else selected(self.param_groups, self.outputs)
        self._gradients = OutputGradients(set(named))
        with self._gradients.watched(recording=True):
            loss = evaluate()
        if not self._gradients.found and torch.isfinite(loss):
            raise UserError(
                "functional_sam found no layer whose output the loss depends on; compute the loss "
                "through an nn.Module, or name its layers in outputs."
            )
        return loss

    def _evaluate_perturbed(self, evaluate: ClosureEvaluator) -> Tensor:
        assert self._gradients is not None
        gradients, self._gradients = self._gradients, None
        with gradients.watched(recording=False):
            loss = evaluate()
        if not torch.isfinite(loss):
            # What was put in place of its derivative is finite, and would hide it.
            for param in self._params_with_grad():
                param.grad = torch.full_like(param, torch.nan)
        return loss


FunctionalSAM.reduces_ascent = False
