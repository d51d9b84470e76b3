"""What TD-MPC2 encodes observations with, and how it augments images before."""

from dataclasses import replace

import torch
from torch import Generator, nn

from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.data.batch import Batch
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Observation
from mbrl_flat.models.mlp import MLP
from mbrl_flat.models.pixel_encoder import PixelEncoder
from mbrl_flat.models.random_shift import random_shift
from mbrl_flat.specs import EnvSpec


def make_encoder(spec: EnvSpec, config: TDMPC2Config) -> nn.Module:
    """Build the encoder of vectors, joined in the order of the spec, or of one image.

    Where there are several tasks, the embedding of the task comes after the vectors.

    Args:
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``TDMPC2Config``.

    Returns:
        A module from ``[..., n]`` or ``[..., C, H, W]`` to ``[..., D]``.

    Raises:
        UserError: If there are several images, or images and vectors.
    """
    dims = config.dims
    if not spec.images:
        hidden = [dims["enc_dim"]] * max(dims["num_enc_layers"] - 1, 1)
        size = sum(shape[0] for shape in spec.observed.values()) + config.task_dim
        return MLP(size, hidden, dims["latent_dim"], simnorm_size=config.simnorm_size)
    if len(spec.obs) > 1:
        raise UserError(
            f"agent=tdmpc2 encodes vectors or one image; this environment gives "
            f"{', '.join(spec.obs)}; take agent=dreamerv3 (DreamerV3), which encodes both."
        )
    return PixelEncoder(
        next(iter(spec.obs.values())),
        dims["latent_dim"],
        channels=config.conv_channels,
        simnorm_size=config.simnorm_size,
    )


def augment(obs: Observation, pad: int, *, generator: Generator | None = None) -> Observation:
    """Shift every image at random; vectors stay as they are and then nothing is drawn."""
    return {
        name: random_shift(value, pad, generator=generator) if value.dtype == torch.uint8 else value
        for name, value in obs.items()
    }


def augment_batch(batch: Batch, pad: int) -> Batch:
    """Shift each image of a batch; whatever is computed from the result shares the shifts."""
    return replace(batch, obs=augment(batch.obs, pad))
