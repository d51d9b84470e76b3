r"""The Gauss-Newton part of the Hessian: what is left if the model were linear in its weights.

For a loss ``l(f(w))`` with outputs ``f``,

.. math::
    H = J^\top \nabla^2 l(f) J + \sum_i \frac{\partial l}{\partial f_i} \nabla^2 f_i, \qquad
    G = J^\top \nabla^2 l(f) J

``G`` has no negative eigenvalues for a convex ``l``, such as cross entropy in the logits, where
``\nabla^2 l = diag(p) - p p^T``; so it is the steadier measure while the Hessian is indefinite.
Labels do not enter there: ``G`` says how far the weights can move what the model predicts.

References:
    Schraudolph, "Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent", Neural
    Computation 14(7), 2002; Martens, "New Insights and Perspectives on the Natural Gradient
    Method", JMLR 21(146), 2020, Section 8.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mbrl_flat.diagnostics.hvp import Hessian, twice_differentiable
from mbrl_flat.diagnostics.vectors import flatten, split
from mbrl_flat.interfaces import CategoricalLoss


class GaussNewton:
    """``G`` as a linear map, on graphs that are kept.

    Args:
        outputs: The model's outputs at the current weights, such as logits ``[B, C]``.
        loss: A scalar function of the outputs, convex for ``G`` to have no negative eigenvalue.
        params: What to differentiate by; each requires a gradient.
    """

    def __init__(
        self,
        outputs: Callable[[], Tensor],
        loss: Callable[[Tensor], Tensor],
        params: Sequence[Tensor],
    ) -> None:
        self._params = list(params)
        with torch.enable_grad(), twice_differentiable():
            self._outputs = outputs()
            # J^T u is linear in u, so its derivative by u along v is J v: two backward passes
            # where forward mode would need rules that not every operation has.
            self._cotangent = torch.zeros_like(self._outputs, requires_grad=True)
            self._pulled = flatten(
                torch.autograd.grad(
                    self._outputs,
                    self._params,
                    self._cotangent,
                    create_graph=True,
                    materialize_grads=True,
                )
            )
        head = self._outputs.detach().requires_grad_(True)
        self._curvature = Hessian(lambda: loss(head), [head])
        self.size = self._pulled.numel()

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply: ``[n]`` to ``[n]``."""
        (pushed,) = torch.autograd.grad(
            self._pulled, self._cotangent, vector, retain_graph=True, materialize_grads=True
        )
        curved = split(self._curvature(flatten([pushed])), [self._outputs])[0]
        columns = torch.autograd.grad(
            self._outputs, self._params, curved, retain_graph=True, materialize_grads=True
        )
        return flatten([column.detach() for column in columns])


def of_categorical(probed: CategoricalLoss, params: Sequence[Tensor]) -> GaussNewton:
    """Take all logits of a loss together as the outputs.

    Args:
        probed: The cross entropies, apart from their logits.
        params: What to differentiate by; each requires a gradient.

    Returns:
        ``G`` of their weighted sum.
    """
    shapes: dict[str, torch.Size] = {}

    def outputs() -> Tensor:
        logits = probed.outputs()
        shapes.update({name: value.shape for name, value in logits.items()})
        return flatten(list(logits.values()))

    def loss(joined: Tensor) -> Tensor:
        parts = joined.split([shape.numel() for shape in shapes.values()])
        named = zip(shapes.items(), parts, strict=True)
        return probed.loss({name: part.view(shape) for (name, shape), part in named})

    return GaussNewton(outputs, loss, params)
