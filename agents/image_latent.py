"""Images as categorical latents: what STORM and TWISTER make of one observation.

The posterior of a latent depends on its own image alone, so whole sequences are encoded at once.

References:
    Zhang et al., "STORM", arXiv:2310.09615, Section 3.1; Burchi & Timofte, "TWISTER",
    arXiv:2503.04416, Section 3.1.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UserError
from mbrl_flat.models.categorical import unimix
from mbrl_flat.models.functional import full_precision
from mbrl_flat.models.strided_conv import StridedEncoder, stages_for
from mbrl_flat.specs import EnvSpec


class LatentShape(NamedTuple):
    """How many categoricals make a latent."""

    groups: int
    """Categoricals S."""
    classes: int
    """Classes C of each."""

    @property
    def size(self) -> int:
        """Features of a latent as one flat vector."""
        return self.groups * self.classes


class ImageSpec(NamedTuple):
    """The one image that an agent learns from."""

    name: str
    """Its entry in the observation."""
    channels: int
    """Of a frame stack together."""
    size: int
    """Height and width."""
    stages: int
    """Halvings down to the smallest feature map."""

    @classmethod
    def of(cls, spec: EnvSpec, *, where: str) -> "ImageSpec":
        """Find it.

        Args:
            spec: The environment's shapes.
            where: Name of the caller, for messages.

        Returns:
            The image.

        Raises:
            UserError: If the observation is anything else than one image of a fitting size.
        """
        images = {name: shape for name, shape in spec.obs.items() if len(shape) == 3}
        if len(images) != 1 or len(spec.obs) != 1:
            raise UserError(
                f"{where} learns from one image, and this environment observes "
                f"{ {name: tuple(shape) for name, shape in spec.obs.items()} }; "
                f"choose one with images, such as env=atari."
            )
        name, shape = next(iter(images.items()))
        return cls(name, shape[0], shape[-1], stages_for(shape, where=where))

    def as_float(self, obs: dict[str, Tensor], *, centre: float = 0.0) -> Tensor:
        """Pixels ``[..., C, H, W]`` in uint8 as floats less ``centre``, ``[N, C, H, W]``."""
        pixels = obs[self.name].flatten(0, -4)
        floats = pixels.to(torch.float32, memory_format=torch.channels_last) / 255.0
        return floats.sub_(centre)


class LatentEncoder(nn.Module):
    """Convolutions and a linear map to the logits of all categoricals.

    Args:
        images: Encoder of images ``[N, C, H, W]``.
        shape: Of the latent.
        mix: Share of the uniform distribution.
    """

    def __init__(self, images: StridedEncoder, shape: LatentShape, *, mix: float) -> None:
        super().__init__()
        self.shape, self.mix = shape, mix
        self.images = images
        self.logits = nn.Linear(images.out_features, shape.size)

    def forward(self, images: Tensor) -> Tensor:
        """Log probabilities ``[N, S, C]`` of images ``[N, channels, H, W]``."""
        maps = self.images(images.to(self.logits.weight.dtype))
        logits = full_precision(self.logits(maps))
        return unimix(logits.unflatten(-1, self.shape), self.mix)
