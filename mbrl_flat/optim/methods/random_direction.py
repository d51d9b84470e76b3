r"""The control for SAM: a perturbation of the same length in a random direction.

.. math::
    \epsilon = \rho \, z / \|z\|_2, \qquad z \sim N(0, I), \qquad d = \nabla L(w + \epsilon)

What SAM gains over this is due to the direction; what this gains over the base is due to noise in
the weights. It costs as many evaluations as SAM.

The length is that of all perturbed parameters together. Among modules and tensors noise shares it
out by their numbers of entries and SAM by their gradients, which counts as direction here: SAM may
spend nearly all of it on a module that noise hardly moves. To have the same length in a module,
perturb that alone with both methods (``only=[dynamics]``). Where groups have radii of their own,
both lengths lie between the smallest and the largest of these, and differ.

How to choose rho:
    That of the method it is the control of: the comparison is at equal length.

References:
    A control, as in Andriushchenko & Flammarion, "Towards Understanding Sharpness-Aware
    Minimization", ICML 2022, arXiv:2206.06232.
"""

import torch

from mbrl_flat.optim.noise import fill_normal
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


@register("random_direction", evaluations=2, memory=2, neutral={"rho": 0.0})
class RandomDirection(SharpnessAware):
    """Perturbation of length ``rho``, uniform over directions."""

    follows_gradient = False

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """``rho z / |z|``, drawn from the optimizer's own generator."""
        noise = [fill_normal(torch.empty_like(p), selection.generator) for p in selection.params]
        return selection.along(noise)
