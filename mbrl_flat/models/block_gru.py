r"""A gated recurrent unit whose large matrices are block-diagonal.

The state is cut into ``g`` blocks; inputs reach all of them, but a block's state reaches the next
state of that block alone. So the cost of a state of size D is ``D^2 / g``.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104, official
    code (``rssm.py``).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.errors import UserError
from mbrl_flat.models.norms import RMSNorm
from mbrl_flat.models.perceptron import fan_in_normal_


class BlockLinear(nn.Module):
    """A linear map for each of g blocks of features.

    Args:
        in_features: Features of all blocks of the input together.
        out_features: Of the output.
        blocks: Number of blocks g.
        fan_in: What the start of the weights counts as inputs of one output, by default
            ``in_features``, those of all blocks, as in the official code: an output has the g-th
            part of them, so that it starts ``sqrt(g)`` times smaller than one of a full matrix.

    Raises:
        UserError: If sizes are not divisible by the number of blocks.
    """

    def __init__(
        self, in_features: int, out_features: int, blocks: int, *, fan_in: int | None = None
    ) -> None:
        super().__init__()
        if in_features % blocks or out_features % blocks:
            raise UserError(
                f"Sizes {in_features} and {out_features} must be divisible by blocks={blocks}."
            )
        self.blocks = blocks
        per_block = in_features // blocks
        self.weight = nn.Parameter(torch.empty(blocks, out_features // blocks, per_block))
        self.bias = nn.Parameter(torch.zeros(out_features))
        fan_in_normal_(self.weight, fan_in=fan_in or in_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_features]`` to ``[N, out_features]``."""
        parts = x.unflatten(-1, (self.blocks, -1)).transpose(0, 1)
        mapped = torch.bmm(parts, self.weight.mT)
        return mapped.transpose(0, 1).flatten(1) + self.bias


class BlockGRU(nn.Module):
    r"""One step ``h' = u c + (1 - u) h``.

    .. math::
        y = act(norm(W_h h + W_x x)), \quad (r, c, u) = V y, \quad
        u = \sigma(u - 1), \quad c = \tanh(\sigma(r) c)

    with block-diagonal ``W_h`` and ``V``.

    Args:
        in_features: Size of the input x.
        size: Size D of the state h.
        blocks: Number of blocks g.
    """

    def __init__(self, in_features: int, size: int, blocks: int) -> None:
        super().__init__()
        # Inputs go to every block, and count once for each.
        fan_in = size + blocks * in_features
        self.blocks = blocks
        self.from_state = BlockLinear(size, size, blocks, fan_in=fan_in)
        self.from_input = nn.Linear(in_features, size, bias=False)
        fan_in_normal_(self.from_input.weight, fan_in=fan_in)
        self.norm = RMSNorm(size, eps=1e-4)
        self.gates = BlockLinear(size, 3 * size, blocks)

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        """Advance states ``[N, D]`` by inputs ``[N, in_features]``."""
        y = F.silu(self.norm(self.from_state(state) + self.from_input(x)))
        gates = self.gates(y).unflatten(-1, (self.blocks, 3, -1))
        reset, candidate, update = (gate.flatten(1) for gate in gates.unbind(-2))
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1.0)
        # The state itself stays in full precision under autocast.
        return torch.lerp(state, candidate.to(state.dtype), update.to(state.dtype))
