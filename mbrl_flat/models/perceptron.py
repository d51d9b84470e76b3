"""Multi-layer perceptrons whose normalisation, activation and start the caller chooses."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Initializer = Callable[[Tensor], Tensor]
"""Fills a weight in place and returns it."""


def fan_in_normal_(weight: Tensor, *, scale: float = 1.0, fan_in: int | None = None) -> Tensor:
    """Fill from a normal cut at two deviations, with variance ``scale^2 / fan_in`` after the cut.

    Args:
        weight: ``[out, in, ...]``.
        scale: Factor on the deviation; 0 gives zeros.
        fan_in: Inputs of one output; by default as in a linear or convolutional layer.

    Returns:
        The weight.

    References:
        Hafner et al., arXiv:2301.04104, official code (``trunc_normal_in``).
    """
    fan_in = weight[0].numel() if fan_in is None else fan_in
    # A standard normal cut at +-2 has a deviation of 1 / 1.1368.
    std = 1.1368 * math.sqrt(1.0 / fan_in)
    with torch.no_grad():
        nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)
        return weight.mul_(scale)


class Perceptron(nn.Sequential):
    """Layers of linear map, normalisation and activation, then a linear map.

    Args:
        in_features: Size of the input.
        hidden: Sizes of the hidden layers; without any the whole is one linear map.
        out_features: Size of the output; None ends with the last hidden layer.
        norm: Makes the normalisation of a layer of given size.
        activation: Makes the activation.
        bias: Whether hidden linear maps have biases; the last one has.
        init: Fills the weights of hidden maps.
        out_init: Fills the weight of the last map.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int | None,
        *,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module] = nn.SiLU,
        bias: bool = True,
        init: Initializer = fan_in_normal_,
        out_init: Initializer = fan_in_normal_,
    ) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise([in_features, *hidden]):
            linear = nn.Linear(n_in, n_out, bias=bias)
            init(linear.weight)
            if bias:
                nn.init.zeros_(linear.bias)
            layers += [linear, norm(n_out), activation()]
        if out_features is not None:
            last = nn.Linear([in_features, *hidden][-1], out_features)
            out_init(last.weight)
            nn.init.zeros_(last.bias)
            layers.append(last)
        super().__init__(*layers)
