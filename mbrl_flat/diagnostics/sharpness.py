r"""How sharp a loss is around the current weights: the quantities that are cheap enough to log.

With gradient ``g`` and Hessian ``H`` of the loss ``L`` at the weights ``w``,

.. math::
    \mathrm{sam\_gap} = L(w + \rho g / |g|) - L(w), \qquad
    \mathrm{first\_order} = \rho |g|, \qquad \lambda_{max}(H), \lambda_{min}(H)

``sam_gap`` is a lower bound of the worst loss within ``rho``. Far from a minimum it is
``first_order`` and says nothing of the curvature, hence both are logged, with ``|g|`` and ``|w|``.
Curvature and radius scale with the weights: before a normalising layer the loss of ``c w`` is that
of ``w``, and its Hessian ``H / c^2``. So compare runs by
``lambda_max_normalised``, which is ``lambda_max |w|^2``, or next to their ``param_norm``.

References:
    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization",
    ICLR 2021, arXiv:2010.01412, Eq. 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbrl_flat.diagnostics.hvp import Hessian, twice_differentiable
from mbrl_flat.diagnostics.lanczos import Product
from mbrl_flat.diagnostics.vectors import flatten, norm, perturbed
from mbrl_flat.interfaces import ProbeLoss
from mbrl_flat.runtime.interrupts import check_interrupt


@dataclass(frozen=True, kw_only=True)
class LossRegion:
    """A loss as a function of some of its weights, the others held fixed.

    Attributes:
        name: The module whose weights these are; empty for all of them.
        loss: The loss at whatever the weights currently are.
        params: The weights, ``n`` in all.
        value: The loss at the weights as they were found.
        gradient: Its gradient there ``[n]``.
        product: Its Hessian there, as products with vectors ``[n]``; only until weights move.
    """

    name: str
    loss: Callable[[], Tensor]
    params: Sequence[Tensor]
    value: float
    gradient: Tensor
    product: Product

    @property
    def prefix(self) -> str:
        """What the names of its quantities begin with."""
        return f"{self.name}/" if self.name else ""


def loss_regions(probed: ProbeLoss, *, per_module: bool) -> list[LossRegion]:
    """Differentiate a loss once, and look at it as a function of all weights and of each module's.

    Args:
        probed: The loss and its parameters by module.
        per_module: Give the modules' regions as well as the whole.

    Returns:
        The whole first; all share one graph.
    """
    params = [p for module in probed.modules.values() for p in module]
    hessian = Hessian(probed.loss, params)
    value = float(hessian.loss)
    found = [
        LossRegion(
            name="",
            loss=probed.loss,
            params=params,
            value=value,
            gradient=hessian.gradient,
            product=hessian,
        )
    ]
    start = entry = 0
    for name, module in probed.modules.items() if per_module else ():
        size = sum(p.numel() for p in module)
        found.append(
            LossRegion(
                name=name,
                loss=probed.loss,
                params=module,
                value=value,
                gradient=hessian.gradient[entry : entry + size],
                product=hessian.block(start, start + len(module)),
            )
        )
        start, entry = start + len(module), entry + size
    return found


def ascent(gradient: Tensor, rho: float) -> Tensor:
    """``rho * g / |g|`` ``[n]``; zero for a zero gradient, NaN for one that is not finite."""
    length = norm(gradient)
    if not torch.isfinite(length):
        return torch.full_like(gradient, float("nan"))
    if length == 0.0:
        return torch.zeros_like(gradient)
    ratio = rho / length
    # The reciprocal of a tiny length overflows; dividing by it does not.
    return gradient * ratio if torch.isfinite(ratio) else gradient / length * rho


def loss_at(region: LossRegion, perturbation: Tensor) -> float:
    """The loss at ``w + e`` for ``e`` ``[n]``; the weights are back at ``w`` afterwards."""
    check_interrupt()
    with torch.no_grad(), twice_differentiable(), perturbed(region.params, perturbation):
        return float(region.loss())


def sam_gap(region: LossRegion, *, rho: float) -> float:
    """``L(w + rho g / |g|) - L(w)``, the gap that one step of SAM sees (Eq. 2)."""
    return loss_at(region, ascent(region.gradient, rho)) - region.value


def norms(region: LossRegion, *, rho: float) -> dict[str, float]:
    """``first_order``, ``grad_norm`` and ``param_norm``."""
    grad_norm = float(norm(region.gradient))
    return {
        "first_order": rho * grad_norm,
        "grad_norm": grad_norm,
        "param_norm": float(norm(flatten([p.detach() for p in region.params]))),
    }
