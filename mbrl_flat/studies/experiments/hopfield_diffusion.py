"""What a diffusion model forgets of its first task, and what replaying some images of it saves.

A pixel DDPM learns digits 0 to 4, a few of them with shuffled pixels, then 5 to 9, while a part of
every batch replays a few of the old images. Forgetting of an image is the rise of its
reconstruction error, on the same noise before and after. Its energy is that of the smoothed
training set without itself.

References:
    Takeda, Oizumi, Karakida, "Continual Learning in Modern Hopfield Networks with an Application
    to Diffusion Models", arXiv:2605.27975: energy predicts forgetting, and replaying the images
    of the highest energy helps most. Data, sizes, noise and schedule are ours: theirs are not
    known to us.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from mbrl_flat.analysis.stats import spearman
from mbrl_flat.data.hopfield_energy import neighbour_width, smoothed_energy
from mbrl_flat.data.selection_policies import POLICIES, choose_replay
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.data import class_split, load_data
from mbrl_flat.studies.experiments.hopfield_diffusion_report import diffusion_claims, draw
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, Value
from mbrl_flat.studies.hopfield.continual import Stage, learn, shuffle_pixels
from mbrl_flat.studies.hopfield.ddpm import NoiseSchedule, diffusion_loss, reconstruction_error
from mbrl_flat.studies.hopfield.denoiser import UNet

_POLICIES = ("none", "random", "top_energy", "bottom_energy", "class_balanced", "cover")
_FACTORS = (0.5, 1.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class FirstTask:
    """A model that has learned the first task, and what is known of the images.

    Attributes:
        model: The denoiser.
        images: First task ``[N, 1, 8, 8]``, outliers planted.
        labels: Their classes ``[N]``.
        outliers: Indices of the outliers.
        second: Images of the second task.
        before: Reconstruction error of each image by time, ``[times, N]``.
        energy: Energy of each image by width, ``[factors, N]``.
        rise: Rise of it when the second task replaces the first, ``[factors, N]``.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    outliers: Tensor
    second: Tensor
    before: Tensor
    energy: Tensor
    rise: Tensor


@dataclass(frozen=True, kw_only=True)
class HopfieldDiffusion(CheckedSettings):
    """The study; its settings.

    Attributes:
        first: How the first task is learned.
        second: How the second is.
        policies: What is replayed; ``none`` is what the others are compared with.
        budget: Share of the first task's images that may be kept.
        share: Share of every batch of the second task that is replayed.
        outliers: Share of the first task whose pixels are shuffled.
        width: Channels of the denoiser at full resolution.
        diffusion_steps: Steps T of the noise.
        times: Noise at which images are reconstructed, as shares of T; claims are about the first.
        draws: Draws of the noise in a reconstruction.
        sampler_steps: Steps of the deterministic sampler.
        seeds: Seeds: start, outliers, batches, noise and what is drawn for replay.
    """

    title: ClassVar[str] = "Forgetting and replay in a diffusion model"
    paper: ClassVar[str] = (
        'Takeda, Oizumi, Karakida, "Continual Learning in Modern Hopfield Networks with an '
        'Application to Diffusion Models", arXiv:2605.27975'
    )

    first: Stage = field(default_factory=lambda: Stage(steps=3000))
    second: Stage = field(default_factory=lambda: Stage(steps=600))
    policies: Sequence[str] = _POLICIES
    budget: float = setting(0.05, "(0, 1)")
    share: float = setting(0.25, "(0, 1)")
    outliers: float = setting(0.02, "[0, 1)")
    width: int = setting(16, "[1, inf)")
    diffusion_steps: int = setting(200, "[2, inf)")
    times: Sequence[float] = setting((0.4, 0.2, 0.6), "(0, 1)")
    draws: int = setting(2, "[1, inf)")
    sampler_steps: int = setting(10, "[1, inf)")
    seeds: int = setting(5, "[1, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for policy in self.policies:
            if policy not in POLICIES:
                raise UnknownNameError("replay policy", policy, POLICIES)
        if not self.times:
            raise UserError("times must hold a number within (0, 1), got none.")

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Every policy, seed after seed, so that its first task is learned once."""
        del rows
        return [Trial(policy=p, seed=seed) for seed in range(self.seeds) for p in self.policies]

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Learn the second task with one policy; reconstruct the first before and after."""
        seed, policy = cell["seed"], cell["policy"]
        start = _first_task(self, seed)
        kept = choose_replay(
            policy,
            energy=start.energy[_FACTORS.index(1.0)].numpy(),
            labels=start.labels.numpy(),
            x=start.images.flatten(1).numpy(),
            num=max(round(self.budget * len(start.images)), 1),
            seed=seed,
        )
        model, schedule = copy.deepcopy(start.model), self.schedule()
        replayed = start.images[torch.from_numpy(kept)]
        learn(
            model, start.second, schedule, self.second,
            replayed=replayed, share=self.share, seed=seed + 1000,
        )  # fmt: skip
        forgotten = self.reconstruct(model, start.images) - start.before
        return {
            "second_loss": denoising_loss(model, start.second, schedule),
            "second_loss_before": denoising_loss(start.model, start.second, schedule),
            **_summary(start, forgotten, kept),
            "replayed_curve": kept.tolist(),
            "forgetting_curve": [float(value) for value in forgotten[0]],
            "energy_curve": [float(value) for value in start.energy[_FACTORS.index(1.0)]],
        }

    def check_data(self) -> None:
        """Refuse to begin without the digits, or what the model is made of."""
        self.tasks()
        self.schedule()

    def tasks(self) -> list[tuple[Tensor, Tensor]]:
        """Images in [-1, 1] and labels of both tasks."""
        x, y = load_data("digits")
        return class_split(2.0 * x - 1.0, y, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])

    def denoiser(self) -> nn.Module:
        """Make the model, before the first task."""
        return UNet(width=self.width)

    def schedule(self) -> NoiseSchedule:
        """The noise."""
        return NoiseSchedule(self.diffusion_steps)

    def encoded(self, images: Tensor) -> Tensor:
        """What the model denoises: here the images themselves."""
        return images

    def first_task(self, seed: int) -> FirstTask:
        """Learn the first task and measure all images."""
        (images, labels), (second, _) = self.tasks()
        count = round(self.outliers * len(images))
        images, index = shuffle_pixels(images, count, seed=seed)
        torch.manual_seed(seed)
        model, schedule = self.denoiser(), self.schedule()
        images, second = self.encoded(images), self.encoded(second)
        learn(model, images, schedule, self.first, seed=seed)
        flat, other = images.flatten(1).double(), second.flatten(1).double()
        width, own = neighbour_width(flat), torch.arange(len(flat))
        energy = torch.stack(
            [smoothed_energy(flat, flat, scale=f * width, leave_out=own) for f in _FACTORS]
        )
        after = torch.stack([smoothed_energy(flat, other, scale=f * width) for f in _FACTORS])
        return FirstTask(
            model=model,
            images=images,
            labels=labels,
            outliers=index,
            second=second,
            before=self.reconstruct(model, images),
            energy=energy,
            rise=after - energy,
        )

    def reconstruct(self, model: nn.Module, images: Tensor) -> Tensor:
        """Reconstruction errors ``[times, N]``, on noise that is always the same."""
        schedule = self.schedule()
        return torch.stack(
            [
                reconstruction_error(
                    model,
                    images,
                    round(time * schedule.num_steps),
                    schedule,
                    draws=self.draws,
                    num_steps=self.sampler_steps,
                )
                for time in self.times
            ]
        )

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """What the paper claims, policy by policy."""
        return diffusion_claims(rows)

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Forgetting by energy and by policy."""
        return {"forgetting": draw(rows, title=self.title)}


_LAST: dict[tuple[str, int], FirstTask] = {}


def _first_task(study: HopfieldDiffusion, seed: int) -> FirstTask:
    """The first task of a seed; the last one is kept, as all policies begin with it."""
    key = (repr(study), seed)
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = study.first_task(seed)
    return _LAST[key]


@torch.no_grad()
def denoising_loss(model: nn.Module, images: Tensor, schedule: NoiseSchedule) -> float:
    """The training loss on images, on four draws of noise that are always the same."""
    generator = torch.Generator().manual_seed(0)
    losses = [diffusion_loss(model, images, schedule, generator=generator) for _ in range(4)]
    return float(torch.stack(losses).mean())


def partial_spearman(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float:
    """Rank correlation of x and y ``[N]`` with that of both with ``given`` taken out."""
    xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
    rest = (1.0 - xz**2) * (1.0 - yz**2)
    return float((xy - xz * yz) / np.sqrt(rest)) if rest > 0.0 else float("nan")


def _summary(start: FirstTask, forgotten: Tensor, kept: np.ndarray) -> dict[str, Any]:
    """Means of forgetting over groups of images, and its correlations with the energy."""
    main, energy = forgotten[0].double(), start.energy[_FACTORS.index(1.0)]
    order, tenth = energy.argsort(), max(len(energy) // 10, 1)
    other = torch.ones(len(main), dtype=torch.bool)
    other[torch.from_numpy(kept)] = False
    ours = main.numpy()
    row: dict[str, Any] = {
        "forgetting": float(main.mean()),
        "forgetting_replayed": float(main[~other].mean()) if len(kept) else None,
        "forgetting_others": float(main[other].mean()),
        "forgetting_high": float(main[order[-tenth:]].mean()),
        "forgetting_low": float(main[order[:tenth]].mean()),
        "forgetting_outliers": float(main[start.outliers].mean()) if len(start.outliers) else None,
        "error_before": float(start.before[0].mean()),
        "partial_correlation": partial_spearman(
            energy.numpy(), ours, start.before[0].double().numpy()
        ),
    }
    for factor, each, rise in zip(_FACTORS, start.energy, start.rise, strict=True):
        row[f"energy_correlation_{factor:g}"] = spearman(each.numpy(), ours)
        row[f"rise_correlation_{factor:g}"] = spearman(rise.numpy(), ours)
    for number, values in enumerate(forgotten[1:], start=1):
        row[f"forgetting_time_{number}"] = float(values.double().mean())
    return row
