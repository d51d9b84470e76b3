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

from mbrl_flat.optim.norms import inner
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


def fisher_ascent(selection: SelectedParams, *, eta: float) -> Perturbation:
    """``rho F^-1 g / sqrt(g F^-1 g)`` in the metric of the diagonal Fisher information."""
    natural = [g / (1.0 + eta * g.square()) for g in selection.grads]
    length = inner(selection.grads, natural).sqrt()
    return selection.times_radius(natural, 1.0 / (length + 1e-12))


@register("fisher_sam", paper="arXiv:2206.04920", evaluations=2, memory=2, neutral={"rho": 0.0})
class FisherSAM(SharpnessAware):
    """Fisher SAM.

    Attributes:
        eta: Weight of the Fisher information in the metric; 0 is SAM.
    """

    eta: float = setting(1.0, "[0, inf)")

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """``rho F^-1 g / sqrt(g F^-1 g)``."""
        return fisher_ascent(selection, eta=self.eta)
