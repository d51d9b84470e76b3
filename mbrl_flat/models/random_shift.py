"""Random shift: the augmentation that learning from pixels cannot do without.

References:
    Kostrikov et al., "Image Augmentation Is All You Need", ICLR 2021, arXiv:2004.13649; in the
    form of DrQ-v2, arXiv:2107.09645, with a pad of 3 pixels as in TD-MPC2, arXiv:2310.16828.

Deviations from the papers:
    The published code interpolates at integer shifts, which gives the pixels back up to rounding;
    here pixels are copied, so images stay uint8.
"""

from functools import partial

import torch
from torch import Generator, Tensor

from mbrl_flat.distributed.batch_shard import draw_shard


def random_shift(images: Tensor, pad: int, *, generator: Generator | None = None) -> Tensor:
    """Move each image by up to ``pad`` pixels each way; what is laid bare repeats the border.

    Args:
        images: ``[..., C, H, W]`` of any type; each gets a shift of its own for all its channels.
        pad: Largest shift; 0 returns the images as they are and draws nothing.
        generator: Source of the draw; torch's global stream on the images' device by default.

    Returns:
        Same shape and type.
    """
    if pad == 0:
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    num, _, height, width = flat.shape
    draw = partial(torch.randint, 2 * pad + 1, generator=generator, device=images.device)
    shift = draw_shard(draw, (2, num), dim=1)
    windows = pad_border(flat, pad).unfold(2, height, 1).unfold(3, width, 1)
    each = torch.arange(num, device=images.device)
    return windows[each, :, shift[0], shift[1]].view(images.shape)


def pad_border(images: Tensor, pad: int) -> Tensor:
    """Repeat the border of ``[N, C, H, W]`` by ``pad`` pixels; torch's own takes no uint8."""
    num, channels, height, width = images.shape
    out = images.new_empty(num, channels, height + 2 * pad, width + 2 * pad)
    middle = slice(pad, pad + height)
    out[..., middle, pad : pad + width] = images
    out[..., middle, :pad] = images[..., :1]
    out[..., middle, pad + width :] = images[..., -1:]
    out[..., :pad, :] = out[..., pad : pad + 1, :]
    out[..., pad + height :, :] = out[..., pad + height - 1 : pad + height, :]
    return out
