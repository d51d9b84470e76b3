"""TWISTER's heads, and how its networks start."""

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from mbrl_flat.agents.twister.config import TWISTERConfig
from mbrl_flat.models.perceptron import Perceptron


def head(in_features: int, out_features: int, config: TWISTERConfig) -> Perceptron:
    """Build a perceptron of the configured size."""
    return Perceptron(
        in_features,
        [config.hidden] * config.num_layers,
        out_features,
        norm=partial(nn.LayerNorm, eps=1e-3),
        bias=False,
        init=fan_average_normal_,
        out_init=nn.init.xavier_uniform_,
    )


def fan_average_normal_(weight: Tensor) -> Tensor:
    """Fill from a normal cut at two deviations, of variance ``2 / (fan_in + fan_out)``.

    Args:
        weight: ``[out, in, ...]``, or ``[in, out, ...]`` of a transposed convolution.

    Returns:
        The weight.
    """
    space = weight[0, 0].numel()
    fan = (weight.shape[0] + weight.shape[1]) * space / 2.0
    # A standard normal cut at +-2 has a deviation of 1 / 1.1368.
    std = 1.1368 * math.sqrt(1.0 / fan)
    return nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


def initialise(module: nn.Module, *, zero_last: Sequence[Perceptron]) -> None:
    """Start every linear map and convolution as published.

    Heads have their start already: Xavier-uniform outputs, or zero where named.

    Args:
        module: The whole model.
        zero_last: Heads whose last layer starts at zero.
    """
    done = {part for head in module.modules() if isinstance(head, Perceptron) for part in head}
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and part not in done:
            fan_average_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for head_ in zero_last:
        last = head_[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
