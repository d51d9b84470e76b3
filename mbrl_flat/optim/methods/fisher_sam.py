r"""Fisher SAM: the worst point of an ellipsoid whose shape is the Fisher information.

.. math::
    f = g^2, \qquad F^{-1} = 1 / (1 + \eta f), \qquad
    \epsilon = \rho \, F^{-1} g / (\sqrt{g^\top F^{-1} g} + 10^{-12}), \qquad
    d = \nabla L(w + \epsilon)

entry by entry. ``eta=0`` is SAM.

How to choose rho:
    Begin with SAM's. Where gradients are small the metric is that of SAM; a larger eta shortens the
    perturbation of entries with large gradients.

References:
    Kim et al., "Fisher SAM: Information Geometry and Sharpness Aware Minimisation", ICML 2022,
    arXiv:2206.04920.

Deviations from the paper:
    There is no public code. The form of the regulariser and the defaults rho 0.05 and eta 1 are
    ours. The Fisher information is that of the batch gradient, not of single examples, which a
    closure does not give.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base import BaseFactory, Params, StepOptions
from mbrl_flat.optim.norms import inner
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


@dataclass(frozen=True, kw_only=True)
class FisherAscent:
    """Perturbation in the metric of the diagonal Fisher information."""

    eta: float

    def __post_init__(self) -> None:
        if self.eta < 0.0:
            raise UserError(f"eta must be at least 0, got {self.eta}; eta=0 is SAM.")

    def __call__(self, selection: SelectedParams) -> Perturbation:
        """``rho F^-1 g / sqrt(g F^-1 g)``."""
        natural = [g / (1.0 + self.eta * g.square()) for g in selection.grads]
        length = inner(selection.grads, natural).sqrt()
        return selection.times_radius(natural, 1.0 / (length + 1e-12))


@register("fisher_sam", paper="arXiv:2206.04920", evaluations=2, memory=2, neutral={"rho": 0.0})
def fisher_sam(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.05,
    eta: float = 1.0,
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> SharpnessAware:
    """Fisher SAM with radius ``rho`` and regulariser ``eta``."""
    return SharpnessAware(
        params,
        base=base,
        perturbation=FisherAscent(eta=eta),
        rho=rho,
        every=every,
        only=only,
        **settings,
    )
