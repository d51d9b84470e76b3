"""Multi-layer perceptrons in TD-MPC2's form: linear, dropout, LayerNorm, activation.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, Section 3.1 and its code.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.models.activations import norm_activation
from mbrl_flat.models.dropout import dropout
from mbrl_flat.models.fused import Layer, after_shared, networks, usable


def truncated_normal_(weight: Tensor, *, std: float = 0.02) -> Tensor:
    """Fill ``[...]`` in place from a normal of deviation ``std``, cut at +-2 (never reached)."""
    with torch.no_grad():
        return nn.init.trunc_normal_(weight, std=std)


class NormedLinear(nn.Module):
    """Linear, dropout, LayerNorm, activation, in this order.

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the output's last dimension.
        dropout: Probability of dropping a feature before the normalisation.
        simnorm_size: If given, the activation is SimNorm with groups of this size, else Mish.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dropout: float = 0.0,
        simnorm_size: int | None = None,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.norm = nn.LayerNorm(out_features)
        self.dropout = dropout
        self.simnorm_size = simnorm_size
        truncated_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in_features]`` to ``[..., out_features]``."""
        return self.activate(self.linear(x))

    def activate(self, x: Tensor) -> Tensor:
        """Apply what follows the linear map to its output ``[..., out_features]``."""
        x = dropout(x, self.dropout, training=self.training)
        norm, size = self.norm, self.simnorm_size
        return norm_activation(x, norm.weight, norm.bias, simnorm_size=size, eps=norm.eps)


class MLP(nn.Sequential):
    """Hidden ``NormedLinear`` layers, then a plain linear layer or a SimNorm layer.

    Args:
        in_features: Size of the input.
        hidden: Sizes of the hidden layers, at least one.
        out_features: Size of the output.
        dropout: Dropout of the first hidden layer.
        simnorm_size: If given, the last layer too is normalised, with SimNorm groups of this size.
        zero_last: Start with a last layer of zero weights.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        *,
        dropout: float = 0.0,
        simnorm_size: int | None = None,
        zero_last: bool = False,
    ) -> None:
        sizes = [in_features, *hidden]
        layers: list[nn.Module] = [
            NormedLinear(n_in, n_out, dropout=dropout if i == 0 else 0.0)
            for i, (n_in, n_out) in enumerate(pairwise(sizes))
        ]
        if simnorm_size is not None:
            layers.append(NormedLinear(sizes[-1], out_features, simnorm_size=simnorm_size))
        else:
            last = nn.Linear(sizes[-1], out_features)
            nn.init.zeros_(last.weight) if zero_last else truncated_normal_(last.weight)
            nn.init.zeros_(last.bias)
            layers.append(last)
        super().__init__(*layers)

    def layers(self) -> list[Layer]:
        """Parameters of each layer."""
        return [
            Layer(m.linear.weight, m.linear.bias, m.norm.weight, m.norm.bias, m.simnorm_size or 0)
            if isinstance(m, NormedLinear)
            else Layer(m.weight, m.bias)
            for m in self
            if isinstance(m, NormedLinear | nn.Linear)
        ]

    def _fused(self, x: Tensor) -> bool:
        """Whether all layers can run in one call."""
        first = self[0]
        assert isinstance(first, NormedLinear)
        kept = not (self.training and first.dropout)
        return kept and x.numel() > 0 and usable(x, first.linear.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[..., in_features]`` to ``[..., out_features]``."""
        if not self._fused(input):
            return super().forward(input)
        out = networks(input.reshape(-1, input.shape[-1]), self.layers())
        return out.view(*input.shape[:-1], -1)

    def forward_pair(self, left: Tensor, right: Tensor) -> Tensor:
        """Apply the network to ``concat(left, right)`` without building it.

        What is shared is computed once: ``left`` ``[..., 1, D]`` may broadcast against ``right``
        ``[..., S, A]``; and no gradient is formed for a side that needs none.

        Args:
            left: First features, ``[..., D]``.
            right: Last features, ``[..., A]``.

        Returns:
            ``[..., out_features]``.
        """
        first = self[0]
        assert isinstance(first, NormedLinear)
        weight = first.linear.weight
        split = left.shape[-1]
        x = F.linear(left, weight[:, :split], first.linear.bias)
        one_row = left.ndim == right.ndim == 3 and left.shape[1] == 1
        if one_row and not torch.is_grad_enabled() and self._fused(right):
            return after_shared(right, self.layers(), x[:, 0])
        x = first.activate(x + F.linear(right, weight[:, split:]))
        for layer in list(self)[1:]:
            x = layer(x)
        return x
