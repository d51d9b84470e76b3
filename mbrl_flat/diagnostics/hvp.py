r"""Products of the Hessian with vectors, on one graph that is kept.

.. math::
    H v = \nabla_w (g(w)^\top v), \qquad g = \nabla_w L

The forward pass and the first backward pass are made once, with their graph; each product is then
one more backward pass through it, about two thirds of what rebuilding the graph would cost.

References:
    Pearlmutter, "Fast Exact Multiplication by the Hessian", Neural Computation 6(1), 1994.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mbrl_flat.diagnostics.vectors import flatten, split


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Choose kernels that can be differentiated twice.

    Neither flash attention nor cuDNN's recurrent layers can. Losses that are to be compared with
    one another are evaluated here as well, as other kernels round otherwise.
    """
    with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
        yield


class Hessian:
    """The Hessian of a scalar loss with respect to some parameters, as a linear map.

    Weights must not be changed in place while it is in use: the graph holds them.

    Args:
        loss: Deterministic and twice differentiable; called once, here.
        params: What to differentiate by; each requires a gradient.

    Attributes:
        loss: The loss at the weights, a detached scalar.
        gradient: Its gradient, a detached vector ``[n]``.
        size: ``n``, the number of weights.
    """

    def __init__(self, loss: Callable[[], Tensor], params: Sequence[Tensor]) -> None:
        self._params = list(params)
        with torch.enable_grad(), twice_differentiable():
            value = loss()
            # Not backward(create_graph=True): that ties parameters and graph into a cycle.
            self._grads = torch.autograd.grad(
                value, self._params, create_graph=True, materialize_grads=True
            )
        self.loss = value.detach()
        self.gradient = flatten([grad.detach() for grad in self._grads])
        self.size = self.gradient.numel()

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply: ``[n]`` to ``[n]``."""
        return self._product(vector, self._params, self._grads)

    def block(self, start: int, stop: int) -> Callable[[Tensor], Tensor]:
        """Return products with the diagonal block of parameters ``start`` to ``stop - 1``.

        They share the graph, and pass through that part of it alone which the block depends on.
        """
        params, grads = self._params[start:stop], self._grads[start:stop]
        return lambda vector: self._product(vector, params, grads)

    @staticmethod
    def _product(vector: Tensor, params: Sequence[Tensor], grads: Sequence[Tensor]) -> Tensor:
        pairs = zip(grads, split(vector, params), strict=True)
        # Where the loss is linear in a parameter, its gradient is constant and has no graph.
        curved = [(grad, part) for grad, part in pairs if grad.requires_grad]
        if not curved:
            return torch.zeros_like(vector)
        columns = torch.autograd.grad(
            [grad for grad, _ in curved],
            params,
            [part for _, part in curved],
            retain_graph=True,
            materialize_grads=True,
        )
        return flatten([column.detach() for column in columns])
