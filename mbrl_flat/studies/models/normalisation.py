"""Normalisation layers and activations by the names that the models take."""

from collections.abc import Callable
from itertools import pairwise

from torch import nn

from mbrl_flat.errors import UnknownNameError
from mbrl_flat.optim.groups import NORM_TYPES

NORMS = ("none", "batch", "layer")
"""Values of ``norm``; ``layer`` on images is over channels and places together."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}
"""Values of ``activation``."""


def feature_norm(norm: str, features: int) -> list[nn.Module]:
    """Layers that normalise ``[B, features]``: none or one."""
    _check(norm)
    if norm == "batch":
        return [nn.BatchNorm1d(features)]
    return [nn.LayerNorm(features)] if norm == "layer" else []


def image_norm(norm: str, channels: int) -> list[nn.Module]:
    """Layers that normalise ``[B, channels, H, W]``: none or one."""
    _check(norm)
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    return [nn.GroupNorm(1, channels)] if norm == "layer" else []


def normalised_weights(layers: nn.Sequential) -> list[nn.Parameter]:
    """Find the weights and biases whose scale the network does not feel.

    Args:
        layers: Some of which normalise.

    Returns:
        Those of layers whose outputs are normalised next: scaling a layer's weights and biases
        together changes nothing but for the normalisation's epsilon.
    """
    return [
        param
        for layer, after in pairwise(layers)
        if isinstance(after, NORM_TYPES)
        for param in layer.parameters()
    ]


def activation_layer(name: str) -> nn.Module:
    """Make the activation of that name."""
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def _check(norm: str) -> None:
    if norm not in NORMS:
        raise UnknownNameError("norm", norm, NORMS)
