"""Train a diffusion model on one task after the other, with some of the old images replayed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim import OPTIMIZERS, FlatOptimizer, make_optimizer
from mbrl_flat.runtime.interrupts import check_interrupt
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.hopfield.ddpm import NoiseSchedule, diffusion_loss
from mbrl_flat.studies.training import take_step


@dataclass(frozen=True, kw_only=True)
class Stage(CheckedSettings):
    """How one task is learned.

    Attributes:
        optimizer: Name in the registry; on Adam where it has a base.
        settings: The method's own settings, such as ``{"rho": 0.05}``.
        lr: Learning rate, above 0.
        steps: Number of updates.
        batch_size: Images in a batch.
    """

    optimizer: str = "adam"
    settings: Mapping[str, Any] = field(default_factory=dict)
    lr: float = setting(1e-3, "(0, inf)")
    steps: int = setting(1000, "[1, inf)")
    batch_size: int = setting(64, "[2, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)

    def build(self, model: nn.Module) -> FlatOptimizer:
        """Make the optimizer of all weights of a model."""
        base = {"base": "adam"} if OPTIMIZERS[self.optimizer].has_base else {}
        return make_optimizer(self.optimizer, model, **{"lr": self.lr, **base, **self.settings})


def learn(
    model: nn.Module,
    images: Tensor,
    schedule: NoiseSchedule,
    stage: Stage,
    *,
    replayed: Tensor | None = None,
    share: float = 0.25,
    seed: int,
) -> None:
    """Train a denoiser in place.

    Times and noise follow from ``seed`` alone and are the same in every evaluation of a step. The
    images of the new task are drawn by their own stream, so that they are the same with and
    without replay, but for those whose place a replayed image takes.

    Args:
        model: Predicts noise from noisy images and integer times.
        images: The task's ``[N, C, Hh, Ww]`` in [-1, 1].
        schedule: How much noise each of the T diffusion steps has.
        stage: Optimizer, learning rate, number of updates and batch size.
        replayed: Old images ``[K, C, Hh, Ww]``; none by default.
        share: Share of every batch that is drawn from them.
        seed: Determines batches, times and noise.

    Raises:
        DivergedError: If the loss or a gradient is not finite.
    """
    new, old, noise = (torch.Generator().manual_seed(3 * seed + part) for part in range(3))
    optimizer = stage.build(model)
    kept = None if replayed is None or len(replayed) == 0 else replayed
    model.train()
    for step in range(stage.steps):
        check_interrupt()
        batch = _drawn(images, stage.batch_size, new)
        if kept is not None:
            count = round(share * stage.batch_size)
            batch = torch.cat([batch[count:], _drawn(kept, count, old)])
        state = noise.get_state()

        def loss_of() -> Tensor:
            noise.set_state(state)  # noqa: B023 - called before the next draw
            return diffusion_loss(model, batch, schedule, generator=noise)  # noqa: B023

        take_step(optimizer, loss_of, step=step)
    model.eval()


def _drawn(images: Tensor, count: int, generator: Generator) -> Tensor:
    return images[torch.randint(len(images), (count,), generator=generator)]


def shuffle_pixels(images: Tensor, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Plant outliers: images whose pixels are shuffled, each in its own way.

    Args:
        images: ``[N, C, Hh, Ww]``.
        count: Number of images whose pixels are shuffled.
        seed: Determines which, and how.

    Returns:
        The images with some replaced, and the indices of these ``[count]``.

    Raises:
        UserError: If there are fewer images.
    """
    if not 0 <= count <= len(images):
        raise UserError(f"Cannot plant {count} outliers among {len(images)} images.")
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(images), generator=generator)[:count]
    changed = images.clone()
    for number in index.tolist():
        flat = images[number].flatten()
        order = torch.randperm(flat.numel(), generator=generator)
        changed[number] = flat[order].view_as(images[number])
    return changed, index
