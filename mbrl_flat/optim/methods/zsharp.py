r"""ZSharp: SAM along the entries of the gradient that stand out in their layer.

.. math::
    z = (g - \mu) / (\sigma + 10^{-8}), \qquad
    \tilde g = g \odot [\,|z| \ge q_p(|z|)\,], \qquad
    \epsilon = \rho \, \tilde g / (\|\tilde g\|_2 + 10^{-12}), \qquad d = \nabla L(w + \epsilon)

with mean and standard deviation over the entries of each tensor, and the quantile of each tensor.
``percentile=0`` is SAM.

How to choose rho:
    As for SAM: 0.05 in the paper. The perturbation has SAM's length on few entries, so each of them
    moves farther.

References:
    Yun, "Sharpness-Aware Minimization with Z-Score Gradient Filtering for Neural Networks",
    arXiv:2505.02369; percentile 0.95 and rho 0.05 are its defaults.

Deviations from the paper:
    At least one entry of every tensor is kept, which takes the place of the paper's fallback to the
    whole gradient. There was no code of the authors to compare with.
"""

import torch
from torch import Tensor

from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


@register("zsharp", paper="arXiv:2505.02369", evaluations=2, memory=2, neutral={"rho": 0.0})
class ZSharp(SharpnessAware):
    """SAM along the largest z-scores.

    Attributes:
        percentile: Share of the entries of a tensor that are left out.
    """

    percentile: float = setting(0.95, "[0, 1)")

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """``rho g~ / |g~|``."""
        return selection.along([self._filtered(grad) for grad in selection.grads])

    def _filtered(self, grad: Tensor) -> Tensor:
        if not grad.numel():
            return grad
        scores = (grad - grad.mean()).abs_().div_(torch.std(grad, correction=0) + 1e-8)
        kept = max(1, round((1.0 - self.percentile) * grad.numel()))
        least = scores.flatten().topk(kept).values[-1]
        return grad * (scores >= least)
