r"""Fine-tuning of a latent diffusion model through the ``diffusers`` package.

The autoencoder is frozen and the U-Net is trained on its latents, so that memories and energies
live in latent space. Any optimizer of the registry trains it.

References:
    Takeda, Oizumi, Karakida, arXiv:2605.27975: Stable Diffusion v1.5, autoencoder frozen.
    Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022.

Deviations from the paper:
    Its prompts, learning rate and number of steps are not known to us; the caller chooses them.
"""

import importlib
from typing import Any

import torch
from torch import Tensor

from mbrl_flat.errors import MissingExtraError, UserError

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
"""Name of the published model on the hub."""


def load_pipeline(source: str = STABLE_DIFFUSION, *, offline: bool = False) -> Any:
    """Load a pipeline by its name on the hub or from a folder.

    Args:
        source: Name or folder.
        offline: Use only what is on this machine.

    Returns:
        A ``StableDiffusionPipeline``, everything but its U-Net frozen.

    Raises:
        MissingExtraError: If ``diffusers`` is absent.
        UserError: If there is no such pipeline, or it can't be reached.
    """
    try:
        diffusers = importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtraError("Latent diffusion needs diffusers", "diffusion") from error
    try:
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
            source, local_files_only=offline, safety_checker=None, requires_safety_checker=False
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"The pipeline {source!r} could not be loaded: give a folder that holds one, or a "
            f"name on the hub and a connection ({str(error).splitlines()[0]})."
        ) from error
    for frozen in (pipeline.vae, pipeline.text_encoder):
        frozen.requires_grad_(False).eval()
    return pipeline


@torch.no_grad()
def encode_images(model: Any, images: Tensor) -> Tensor:
    """Latents of images, the posterior's mean, scaled as the U-Net expects them.

    Args:
        model: The pipeline.
        images: ``[N, 3, Hh, Ww]`` in [-1, 1].

    Returns:
        ``[N, C, h, w]``.
    """
    return model.vae.encode(images).latent_dist.mean * model.vae.config.scaling_factor


@torch.no_grad()
def encode_prompts(model: Any, prompts: list[str]) -> Tensor:
    """Embeddings of prompts ``[N, L, E]``."""
    tokens = model.tokenizer(
        prompts,
        padding="max_length",
        max_length=model.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    device = next(model.text_encoder.parameters()).device
    return model.text_encoder(tokens.input_ids.to(device))[0]
