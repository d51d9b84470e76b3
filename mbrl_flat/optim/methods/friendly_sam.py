r"""Friendly SAM: SAM along what is left of the gradient without its moving average.

.. math::
    r_t = g_t - \sigma m_{t-1}, \qquad
    m_t = \lambda m_{t-1} + (1 - \lambda) g_t, \quad r_0 = m_0 = g_0, \qquad
    \epsilon = \rho \, r_t / (\|r_t\|_2 + 10^{-12}), \qquad d = \nabla L(w + \epsilon)

Sigma is ``mean_share``, lambda is ``decay``; ``mean_share=0`` is SAM.

How to choose rho:
    As for SAM; the authors' script for CIFAR-100 has 0.2.

References:
    Li et al., "Friendly Sharpness-Aware Minimization", CVPR 2024, arXiv:2403.12350; sigma 1 and
    lambda 0.9 are the defaults of the authors' class.

Deviations from the paper:
    As in the authors' code, the average is subtracted before it takes in the new gradient, and
    begins with the first one. With
    ``micro_batches=each`` it takes in the gradient of every micro-batch, one after the other: it
    spans as many fewer steps as there are micro-batches, and their order counts.
"""

import torch
from torch import Tensor

from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


@register("friendly_sam", paper="arXiv:2403.12350", evaluations=2, memory=3, neutral={"rho": 0.0})
class FriendlySAM(SharpnessAware):
    """Friendly SAM.

    Attributes:
        mean_share: Share sigma of the average that is subtracted; 0 is SAM.
        decay: Decay lambda of the average.
    """

    mean_share: float = setting(1.0, "[0, inf)")
    decay: float = setting(0.9, "[0, 1)")

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """``rho r / |r|``."""
        residuals: list[Tensor] = []
        for grad, own in zip(selection.grads, selection.method_state, strict=True):
            if "mean" not in own:
                own["mean"] = grad.clone()
                residuals.append(grad)
                continue
            mean = own["mean"]
            residuals.append(torch.sub(grad, mean, alpha=self.mean_share))
            mean.mul_(self.decay).add_(grad, alpha=1.0 - self.decay)
        return selection.along(residuals)
