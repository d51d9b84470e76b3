"""A multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from mbrl_flat.studies.models.normalisation import activation_layer, feature_norm


class Perceptron(nn.Sequential):
    """Linear layers with normalisation and activation between them; the last is linear alone.

    Inputs ``[B, ...]`` are flattened; outputs are ``[B, out_features]``. Weights start as torch
    starts them.

    Args:
        in_features: Entries of an input.
        hidden: Widths of the hidden layers.
        out_features: Size of the last axis of the output, such as the number of classes.
        norm: ``none``, ``batch`` or ``layer``, before each activation.
        activation: ``relu``, ``tanh`` or ``gelu``.
        bias: Whether linear layers have biases.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        *,
        norm: str = "none",
        activation: str = "relu",
        bias: bool = True,
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in pairwise([in_features, *hidden]):
            layers += [nn.Linear(n_in, n_out, bias=bias), *feature_norm(norm, n_out)]
            layers.append(activation_layer(activation))
        last = hidden[-1] if hidden else in_features
        super().__init__(*layers, nn.Linear(last, out_features, bias=bias))
