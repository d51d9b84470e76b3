"""Forgetting, Hopfield energy and replay in a latent diffusion model, such as Stable Diffusion.

The study of the pixel model on a published pipeline: the autoencoder and the text encoder are
frozen, the U-Net is fine-tuned on the latents of digits, so that memories and energies live in
latent space. Everything else is measured as for the pixel model.

References:
    Takeda, Oizumi, Karakida, arXiv:2605.27975: Stable Diffusion v1.5, autoencoder frozen.

Deviations from the paper:
    Its prompts, images, learning rate and number of steps are not known to us; those here are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.settings import setting
from mbrl_flat.studies.experiments.hopfield_diffusion import HopfieldDiffusion
from mbrl_flat.studies.hopfield.continual import Stage
from mbrl_flat.studies.hopfield.ddpm import NoiseSchedule
from mbrl_flat.studies.hopfield.latent_diffusion import (
    STABLE_DIFFUSION,
    encode_images,
    encode_prompts,
    load_pipeline,
)


class PromptedUNet(nn.Module):
    """The U-Net of a pipeline at one prompt: predicts noise from noisy latents and times.

    Args:
        model: The pipeline's parts.
        prompt: The prompt.
    """

    prompt: Tensor

    def __init__(self, model: Any, prompt: str) -> None:
        super().__init__()
        self.unet = model.unet
        self.register_buffer("prompt", encode_prompts(model, [prompt]))

    def forward(self, latents: Tensor, time: Tensor) -> Tensor:
        """Predict the noise in ``[N, C, h, w]`` at integer times ``[N]``."""
        prompts = self.prompt.expand(len(latents), -1, -1)
        return self.unet(latents, time, encoder_hidden_states=prompts).sample


@dataclass(frozen=True, kw_only=True)
class HopfieldLatentDiffusion(HopfieldDiffusion):
    """The study; its settings beside those of ``HopfieldDiffusion``.

    Attributes:
        pipeline: Folder of a ``StableDiffusionPipeline``, or its name on the hub.
        prompt: Prompt of all images.
        image_size: Pixels a side to which the digits are enlarged.
        examples: Images of each task.
        offline: Use only what is on this machine.
    """

    title: ClassVar[str] = "Forgetting and replay in a latent diffusion model"

    first: Stage = field(default_factory=lambda: Stage(steps=1000, lr=1e-5, batch_size=4))
    second: Stage = field(default_factory=lambda: Stage(steps=300, lr=1e-5, batch_size=4))
    times: Sequence[float] = setting((0.4,), "(0, 1)")
    pipeline: str = STABLE_DIFFUSION
    prompt: str = "a handwritten digit"
    image_size: int = setting(512, "[8, inf)")
    examples: int = setting(200, "[2, inf)")
    offline: bool = False

    def tasks(self) -> list[tuple[Tensor, Tensor]]:
        """The first images of both tasks."""
        return [(x[: self.examples], y[: self.examples]) for x, y in super().tasks()]

    def denoiser(self) -> nn.Module:
        """The published U-Net; every seed begins with the same weights."""
        model, weights = _pipeline(self.pipeline, self.offline)
        model.unet.load_state_dict(weights)
        return PromptedUNet(model, self.prompt)

    def schedule(self) -> NoiseSchedule:
        """The noise that the pipeline was trained with."""
        model, _ = _pipeline(self.pipeline, self.offline)
        return NoiseSchedule.of(model.scheduler.alphas_cumprod)

    def encoded(self, images: Tensor) -> Tensor:
        """Latents of the enlarged images, in three equal channels."""
        model, _ = _pipeline(self.pipeline, self.offline)
        large = F.interpolate(images, size=(self.image_size,) * 2, mode="bicubic").clamp(-1.0, 1.0)
        parts = [encode_images(model, part.expand(-1, 3, -1, -1)) for part in large.split(8)]
        return torch.cat(parts)


@lru_cache(maxsize=1)
def _pipeline(source: str, offline: bool) -> tuple[Any, dict[str, Tensor]]:
    model = load_pipeline(source, offline=offline)
    return model, {name: entry.clone() for name, entry in model.unet.state_dict().items()}
