"""RMSNorm that is computed in full precision, also under autocast.

References:
    Zhang & Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019, arXiv:1910.07467.
"""

from torch import Tensor, nn

from mbrl_flat.models.functional import full_precision


class RMSNorm(nn.RMSNorm):
    """RMSNorm over the last dimension with a scale; the result has the type of the input."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[..., D]``."""
        return super().forward(full_precision(x)).to(x.dtype)


class ChannelRMSNorm(RMSNorm):
    """RMSNorm over the channels of each pixel of ``[N, C, height, width]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[N, C, height, width]``."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)
