"""A vision transformer, small enough for a laptop.

References:
    Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv:2010.11929: patches,
    a class token, learned positions, layers that normalise before they transform.
"""

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UserError


class VisionTransformer(nn.Module):
    """ViT; the defaults are those of ViT-tiny but for the depth and the size of a patch.

    Args:
        in_channels: Channels of an image.
        image_size: H = W, divisible by the patch.
        out_features: Size of the last axis of the output, such as the number of classes.
        patch_size: Side of a patch.
        width: Features of a token; ViT-tiny has 192.
        depth: Layers; ViT-tiny has 12.
        heads: Attention heads; ViT-tiny has 3.

    Raises:
        UserError: If the image is no whole number of patches.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        out_features: int,
        *,
        patch_size: int = 2,
        width: int = 192,
        depth: int = 2,
        heads: int = 3,
    ) -> None:
        if image_size % patch_size:
            raise UserError(
                f"An image of size {image_size} is no whole number of patches of {patch_size}."
            )
        super().__init__()
        self.patches = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        places = (image_size // patch_size) ** 2 + 1
        self.positions = nn.Parameter(0.02 * torch.randn(1, places, width))
        self.layers = nn.Sequential(*(_Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, C, H, W]`` to ``[B, out_features]``."""
        patches = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions
        return self.head(self.norm(self.layers(tokens)[:, 0]))


class _Layer(nn.Module):
    """Attention and a perceptron four times as wide, each after a LayerNorm, each residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(B, T, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(B, T, D))
        return x + self.mlp(self.norm(x))
