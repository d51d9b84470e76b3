r"""SAM: the gradient at the worst point of a ball, to first order.

.. math::
    \epsilon = \rho \, g / (\|g\|_2 + 10^{-12}), \qquad d = \nabla L(w + \epsilon)

with the norm taken over all selected parameters together.

How to choose rho:
    The authors of ASAM run SAM with 0.05 on CIFAR-10 and 0.1 on CIFAR-100; the paper on world
    models scans 0.001 to 0.05. On TD-MPC2 0.01 was chosen here. Sweep it in factors of 2, then 1.4,
    on held-out data: the best value is often close to where learning collapses, so that one fixed
    value misleads.
    ``optim/perturbed_gap`` near 0 says that the radius does nothing; a gap as large as the loss
    says that it is too large. During learning-rate warm-up let the radius warm up as well
    (``schedules.WarmUp``).

References:
    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization",
    ICLR 2021, arXiv:2010.01412, Algorithm 1 and Eq. 2 (p = 2).

Deviations from the paper:
    None. Gradients are clipped only after the second evaluation; the paper does not clip.
"""

from mbrl_flat.optim.registry import register
from mbrl_flat.optim.sharpness_aware import SharpnessAware


@register("sam", paper="arXiv:2010.01412", evaluations=2, memory=1, neutral={"rho": 0.0})
class SAM(SharpnessAware):
    """SAM with radius ``rho``."""
