r"""The empirical neural tangent kernel, and how fast it moves.

.. math::
    K = J J^\top, \qquad J_{(i, c)} = \nabla_\theta f_c(x_i)

For the mean of ``0.5 |f(x) - y|^2`` over n inputs, the non-zero eigenvalues of ``K / n`` are those
of the Gauss-Newton matrix, so that ``eta lambda_max(K) / n < 2`` is the edge seen in function
space.

References:
    Jacot, Gabriel, Hongler, "Neural Tangent Kernel", NeurIPS 2018.
    Fort et al., "Deep learning versus kernel learning", NeurIPS 2020: kernel distance and velocity.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev


def tangent_kernel(model: nn.Module, inputs: Tensor) -> Tensor:
    """Kernel of all outputs on all inputs.

    Args:
        model: Maps ``[m, ...]`` to ``[m, C]``, each input by itself.
        inputs: ``[m, ...]``.

    Returns:
        ``[m C, m C]``.
    """
    params = {name: param.detach() for name, param in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def outputs(weights: dict[str, Tensor]) -> Tensor:
        return functional_call(model, {**weights, **buffers}, (inputs,)).flatten()

    jacobian = jacrev(outputs)(params)
    rows = torch.cat([block.flatten(1) for block in jacobian.values()], 1)
    return rows @ rows.mT


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """``1 - <K, L> / (|K| |L|)`` of two kernels ``[k, k]``: 0 for the same up to scale."""
    return float(1.0 - (first * second).sum() / (first.norm() * second.norm()))


def kernel_velocity(before: Tensor, after: Tensor) -> float:
    """``|L - K| / |K|`` in the Frobenius norm, for kernels ``[k, k]`` one step apart."""
    return float((after - before).norm() / before.norm())
