"""LayerNorm and BatchNorm that can be differentiated three times.

torch's fused kernels hand the saved mean and deviation to their second derivative as constants. It
is right, but its own derivative is not, and no error says so (seen with torch 2.13; pytorch issues
175754 and 186256). Composed of elementary operations all derivatives are right.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class ThriceDifferentiable(TorchFunctionMode):
    """A context in which normalisation layers are composed of elementary operations.

    BatchNorm in training mode leaves its running statistics as they are.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the two functions, call every other as it is."""
        del types
        return _COMPOSED.get(func, func)(*args, **(kwargs or {}))


def _normalised(x: Tensor, dims: list[int], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    out = _normalised(x, list(range(-len(normalized_shape), 0)), eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        # An affine map, right to every order.
        return F.batch_norm(
            x, running_mean, running_var, weight, bias, training=False, momentum=momentum, eps=eps
        )
    out = _normalised(x, [0, *range(2, x.ndim)], eps)
    shape = [-1] + [1] * (x.ndim - 2)
    out = out if weight is None else out * weight.view(shape)
    return out if bias is None else out + bias.view(shape)


_COMPOSED: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    F.layer_norm: _layer_norm,
    F.batch_norm: _batch_norm,
}
