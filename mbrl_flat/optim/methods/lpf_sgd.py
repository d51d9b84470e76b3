r"""LPF-SGD: descend on the loss smoothed by noise in proportion to the filters' norms.

.. math::
    d = \nabla L(w + n), \qquad n_k \sim N(0, (\sigma \|w_k\|_2)^2 I)

where :math:`w_k` is the part of a tensor that makes one output (all dimensions but the first), or
the whole tensor if it has one dimension. The paper splits the batch in M shards with noise of their
own: give the optimizer one closure a shard and ``micro_batches=each``. ``sigma=0`` is the base.

How to choose rho:
    The radius is sigma, in units of each filter's norm: 0.002 for CIFAR, 0.001 for smaller images
    and 0.0005 for ImageNet in the authors' code.

References:
    Bisla, Wang & Choromanska, "Low-Pass Filtering SGD for Recovering Flat Optima in the Deep
    Learning Optimization Landscape", AISTATS 2022, arXiv:2201.08025; sigma 0.002 is that of the
    authors' code for CIFAR.

Deviations from the paper:
    The base is the user's. The size of the noise is constant unless ``sigma`` is a schedule.
"""

from torch import Tensor

from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.perturbing_optimizer import RadiusOptimizer
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.with_base import HasBase


def filter_norms(weight: Tensor) -> Tensor:
    """Euclidean norm of every filter, in a shape that broadcasts to the weight."""
    if weight.ndim <= 1:
        return weight.norm()
    return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))


@register("lpf_sgd", paper="arXiv:2201.08025", evaluations=1, memory=2, neutral={"sigma": 0.0})
class LPFSGD(HasBase, RadiusOptimizer):
    """Noise in proportion to the norm of each filter; ``rho`` of a group is its sigma.

    Attributes:
        sigma: Scale of the noise, or a schedule of it.
    """

    sigma: Radius = 0.002

    radius_name = "sigma"
    clean_first = False
    follows_gradient = False

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        selection = self._selected(self._chosen_now(), grads=False)
        if not selection.params:
            return evaluate()
        draws = zip(self._noise(selection.params), selection.params, strict=True)
        noise = [z * filter_norms(p) for z, p in draws]
        perturbation = self._report(selection.params, selection.times_radius(noise, 1.0))
        return self._evaluate_at(evaluate, selection.params, perturbation)
