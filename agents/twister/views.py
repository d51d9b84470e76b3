"""Augmented views of images: random resized crops, all of a batch at once.

References:
    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015 (the crop); Burchi & Timofte,
    "TWISTER", arXiv:2503.04416, Section 3.3 (its use).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_boxes(
    num: int,
    *,
    min_area: float,
    max_ratio: float = 4.0 / 3.0,
    device: torch.device,
) -> Tensor:
    """Draw crops from torch's global stream.

    The area is uniform in ``[min_area, 1]`` of the image, the ratio of width to height log-uniform
    in ``[1 / max_ratio, max_ratio]``, the place uniform; a side longer than the image is cut.

    Args:
        num: Number of boxes N.
        min_area: Smallest area of a box as a fraction of the image, in (0, 1].
        max_ratio: Largest ratio of width to height, at least 1.
        device: Device on which the boxes are drawn.

    Returns:
        ``[num, 4]``: centre x, centre y, half width, half height, the image being [-1, 1].
    """
    u = torch.rand(num, 4, device=device)
    area = min_area + (1.0 - min_area) * u[:, 0]
    ratio = torch.exp((2.0 * u[:, 1] - 1.0) * math.log(max_ratio))
    half = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1.0)
    centre = (2.0 * u[:, 2:] - 1.0) * (1.0 - half)
    return torch.cat([centre, half], 1)


def torchvision_boxes(
    num: int,
    *,
    size: int,
    min_area: float,
    max_ratio: float = 4.0 / 3.0,
    tries: int = 10,
    device: torch.device,
) -> Tensor:
    """Draw crops of whole pixels as ``torchvision.transforms.RandomResizedCrop`` does.

    Area and ratio are those of ``random_boxes``; sides are rounded to pixels, and drawn again where
    they are longer than the image; after ``tries`` draws the whole image is taken.

    Args:
        num: Number of boxes N.
        size: Height and width of the images.
        min_area: Smallest area, a share of the image's.
        max_ratio: Largest ratio of width to height.
        tries: Draws of a box before the whole image is taken, at least 1.
        device: Device on which the boxes are drawn.

    Returns:
        ``[num, 4]`` as ``random_boxes`` gives them.
    """
    u = torch.rand(num, tries, 4, device=device)
    area = size * size * (min_area + (1.0 - min_area) * u[..., 0])
    ratio = torch.exp((2.0 * u[..., 1] - 1.0) * math.log(max_ratio))
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], -1).round()
    fits = ((sides > 0.0) & (sides <= size)).all(-1)
    corner = (u[..., 2:] * (size - sides + 1.0)).floor()
    first = fits.to(torch.uint8).argmax(1)  # the first try that fits
    rows = torch.arange(num, device=device)
    whole = ~fits.any(1)[:, None]
    sides = sides[rows, first].masked_fill(whole, float(size))
    corner = corner[rows, first].masked_fill(whole, 0.0)
    return torch.cat([(2.0 * corner + sides) / size - 1.0, sides / size], 1)


def resized_crops(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut boxes out of images and resize them bilinearly to the images' size.

    Args:
        images: ``[N, C, H, W]``.
        boxes: ``[N, 4]`` as ``random_boxes`` gives them.

    Returns:
        ``[N, C, H, W]``.
    """
    centre, half = boxes.to(images.dtype).split(2, 1)
    theta = torch.cat([torch.diag_embed(half), centre[..., None]], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
