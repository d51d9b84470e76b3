"""K networks of one shape side by side, of which any subset can be evaluated alone.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828: an ensemble of Q-functions of which two,
    drawn at random, are used at a time.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from mbrl_flat.models.activations import norm_activation
from mbrl_flat.models.dropout import dropout_mask
from mbrl_flat.models.fused import Layer, networks, usable
from mbrl_flat.models.mlp import truncated_normal_


class EnsembleLayerNorm(nn.Module):
    """Affine parameters ``[K, D]`` of the LayerNorm of K members."""

    def __init__(self, num: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num, features))
        self.bias = nn.Parameter(torch.zeros(num, features))

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Normalise ``[K, R, D]`` and apply Mish; ``members`` ``[K]`` picks the parameters."""
        return norm_activation(x, _pick(self.weight, members), _pick(self.bias, members))


class EnsembleLinear(nn.Module):
    """K linear maps side by side; input ``[K, R, in]``, output ``[K, R, out]``."""

    def __init__(
        self,
        num: int,
        in_features: int,
        out_features: int,
        *,
        init: Literal["truncated_normal", "kaiming_uniform", "zero"],
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(num, out_features))
        bound = in_features**-0.5
        if init == "truncated_normal":
            truncated_normal_(self.weight)
        elif init == "kaiming_uniform":
            nn.init.uniform_(self.weight, -bound, bound)
        if init == "kaiming_uniform":
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Apply members ``[K]`` (all of them by default), each to its own rows."""
        weight, bias = _pick(self.weight, members), _pick(self.bias, members)
        return torch.baddbmm(bias[:, None], x, weight.mT)


class EnsembleMLP(nn.Module):
    """K independent networks of one shape: two hidden layers, dropout on the first.

    Args:
        num: Number of members K.
        in_features: Size of the input.
        hidden: Sizes of the hidden layers.
        out_features: Size of the output.
        dropout: Dropout of the first hidden layer, drawn independently for each member.
        init: How hidden layers start; the last layer starts at zero weights.
    """

    def __init__(
        self,
        num: int,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        *,
        dropout: float = 0.0,
        init: Literal["truncated_normal", "kaiming_uniform"] = "truncated_normal",
    ) -> None:
        super().__init__()
        self.num = num
        self.dropout = dropout
        sizes = [in_features, *hidden]
        pairs = list(pairwise(sizes))
        self.hidden = nn.ModuleList(EnsembleLinear(num, i, o, init=init) for i, o in pairs)
        self.norms = nn.ModuleList(EnsembleLayerNorm(num, o) for o in hidden)
        self.last = EnsembleLinear(num, sizes[-1], out_features, init="zero")

    def dropout_mask(self, num: int, like: Tensor) -> Tensor | None:
        """Draw what multiplies the first layer of ``num`` members for rows ``like`` ``[R, in]``."""
        first = cast(EnsembleLinear, self.hidden[0])
        shape = (num, len(like), first.weight.shape[1])
        return dropout_mask(self.dropout, shape, like=like, training=self.training, dim=1)

    def forward(
        self,
        x: Tensor,
        members: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        constant: int = 0,
    ) -> Tensor:
        """Evaluate members on shared inputs.

        Args:
            x: ``[..., in_features]``, the same for every member.
            members: Indices ``[M]`` of the members wanted; all K by default. The others cost
                nothing.
            mask: From ``dropout_mask``; drawn by default.
            constant: First features whose gradient nobody needs; it may be left out.

        Returns:
            ``[M, ..., out_features]``.
        """
        num = self.num if members is None else members.shape[0]
        lead, x = x.shape[:-1], x.reshape(-1, x.shape[-1])
        mask = self.dropout_mask(num, x) if mask is None else mask
        if x.numel() and usable(x, self.last.weight):
            chosen = tuple(range(self.num)) if members is None else tuple(members.tolist())
            out = networks(x, self.layers(), members=chosen, mask=mask, constant=constant)
            return out.view(num, *lead, -1)
        x = x.expand(num, -1, -1)
        for depth, (linear, norm) in enumerate(zip(self.hidden, self.norms, strict=True)):
            x = linear(x, members)
            if depth == 0 and mask is not None:
                x = x * mask
            x = norm(x, members)
        x = self.last(x, members)
        return x.view(num, *lead, x.shape[-1])

    def layers(self) -> list[Layer]:
        """Parameters of each layer, of all members."""
        pairs = zip(self.hidden, self.norms, strict=True)
        hidden = [Layer(h.weight, h.bias, n.weight, n.bias, 0) for h, n in pairs]  # pyright: ignore[reportArgumentType]
        return [*hidden, Layer(self.last.weight, self.last.bias)]


def _pick(parameter: Tensor, members: Tensor | None) -> Tensor:
    return parameter if members is None else parameter[members]
