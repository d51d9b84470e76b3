"""When does a flat world model predict better? Offline half of the study, by its plan.

Every variant trains on the same batches and spends the same number of gradient evaluations, but for
``adam``, which makes as many updates as SAM and spends half. Held-out errors are measured along the
training, and every variant is judged at its end and at its own best validation score.

References:
    "Improving Model-Based Reinforcement Learning by Converging to Flatter Minima", NeurIPS 2025.
    Hypotheses, variants, metrics and stopping rule: ``docs/studies/central_claim/plan.md``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim import OPTIMIZERS
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.experiments.central_claim_figures import draw
from mbrl_flat.studies.experiments.central_claim_report import central_claims
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, Value
from mbrl_flat.studies.offline.control import Control
from mbrl_flat.studies.offline.fitting import build_optimizer, fit, loss_on, sharpness_on
from mbrl_flat.studies.offline.offline_model import OfflineModel
from mbrl_flat.studies.offline.task import OfflineTask, build_model
from mbrl_flat.studies.offline.transitions import Transitions

TRACKED = ("state_error_1", "state_error_last", "reward_error", "value_error_0")
"""Test errors that are kept along the training."""


@dataclass(frozen=True, kw_only=True)
class Variant(CheckedSettings):
    """One way of training.

    Attributes:
        method: Name in the registry of optimizers.
        rho: Radius; 0 for a method that has none.
        share: Share of the gradient evaluations that is spent.
        settings: Further settings of the method, such as ``only`` or ``weight_decay``.
        model: Settings of the model that differ.
    """

    method: str = "adam"
    rho: float = setting(0.0, "[0, inf)")
    share: float = setting(1.0, "(0, inf)")
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in OPTIMIZERS:
            raise UnknownNameError("method", self.method, OPTIMIZERS)


@dataclass(frozen=True, kw_only=True)
class CentralClaim(CheckedSettings):
    """The study; its settings.

    Attributes:
        task: Data and how they are split.
        model: Path of the world model's class, an ``OfflineModel``.
        settings: Its settings.
        lr: Learning rate of Adam.
        variants: What can be trained, by name.
        groups: Names of those that are, in groups: one group after the other, seed by seed.
        episodes: Numbers of training episodes.
        evaluations: Gradient evaluations of a training.
        points: Evaluations after which held-out errors are measured; the last is ``evaluations``.
        first_seed: First seed.
        seeds: Number of seeds.
        control: Episodes that are played by planning with the trained models; None for none.
    """

    title: ClassVar[str] = "When does a flat world model predict better?"
    paper: ClassVar[str] = (
        '"Improving Model-Based Reinforcement Learning by Converging to Flatter Minima", '
        "NeurIPS 2025"
    )

    task: OfflineTask
    model: str
    settings: Mapping[str, Any]
    lr: float = setting(1e-3, "(0, inf)")
    variants: Mapping[str, Variant]
    groups: Sequence[Sequence[str]]
    episodes: Sequence[int] = setting((80,), "[1, inf)")
    evaluations: int = setting(4000, "[1, inf)")
    points: Sequence[int] = setting((500, 1000, 2000, 4000), "[1, inf)")
    first_seed: int = setting(100, "[0, inf)")
    seeds: int = setting(10, "[1, inf)")
    control: Control | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (name for group in self.groups for name in group):
            if name not in self.variants:
                raise UnknownNameError("variant", name, self.variants)
        if list(self.points) != sorted(self.points) or self.points[-1] != self.evaluations:
            raise UserError(
                f"points must increase up to evaluations={self.evaluations}, got "
                f"{list(self.points)}."
            )
        if max(self.episodes) > self.task.pool or self.seeds < 1:
            raise UserError(
                f"episodes must be at most pool={self.task.pool} and seeds at least 1, got "
                f"{list(self.episodes)} and {self.seeds}."
            )

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Group after group, seed by seed, so that a stopped study has all variants of some."""
        del rows
        return [
            Trial(episodes=episodes, variant=variant, seed=seed)
            for group in self.groups
            for episodes in self.episodes
            for seed in range(self.first_seed, self.first_seed + self.seeds)
            for variant in group
        ]

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Train once; measure along the way, at the end, and where validation is best."""
        variant, seed = self.variants[cell["variant"]], cell["seed"]
        split = self.task.split(seed, train=cell["episodes"])
        settings = {**self.settings, **variant.model}
        model = build_model(self.model, settings, split["train"], seed=seed)
        optimizer = build_optimizer(
            model, variant.method, lr=self.lr, rho=variant.rho, settings=variant.settings
        )
        points = [round(variant.share * point) for point in self.points]
        found: list[dict[str, Any]] = []
        spent = fit(
            model,
            split["train"],
            optimizer,
            evaluations=points[-1],
            seed=seed,
            points=points,
            at_point=lambda _: found.append(self._at_point(model, split)),
        )
        # A step may cost more than what is left before the last point.
        found += [self._at_point(model, split)] * (len(points) - len(found))
        best = int(np.argmin([point["validation_score"] for point in found]))
        kept = ("test_loss", *TRACKED)
        return _rounded(
            {
                "updates": spent.updates,
                "evaluations": spent.evaluations,
                **found[-1],
                **self.task.values(model, split["test"]),
                **self._sharpness(model, split["train"]),
                **self._control(model, cell),
                "stopped_at": points[best],
                **{f"stopped_{name}": found[best][name] for name in kept},
                "curve_evaluations": [float(point) for point in points],
                **{
                    f"curve_{name}": [point[name] for point in found]
                    for name in ("train_loss", "validation_score", *kept)
                },
            }
        )

    def _at_point(self, model: OfflineModel, split: Mapping[str, Transitions]) -> dict[str, Any]:
        """Losses, validation score and test errors of the model as it is."""
        model.calibrate(split["train"].every(2, 1))
        losses = {
            f"{part}_loss": loss_on(model, self._batch(model, split[part]))
            for part in ("train", "test")
        }
        errors = self.task.errors(model, split["test"])
        validation = self.task.errors(model, split["validation"])
        return {
            **losses,
            "generalisation_ratio": losses["test_loss"] / losses["train_loss"],
            "validation_score": validation["score"],
            **{name: value for name, value in errors.items() if not name.endswith("_curve")},
        }

    def _sharpness(self, model: OfflineModel, data: Transitions) -> dict[str, float]:
        measured = sharpness_on(model, self._batch(model, data), scale_invariant=True)
        return {f"train_{name}": value for name, value in measured.items()}

    def _control(self, model: Any, cell: Trial) -> dict[str, float]:
        """Returns and biases of the planner, where they are asked for."""
        if self.control is None:
            return {}
        seed, task = cell["seed"], self.task
        scale = task.scale(seed, train=cell["episodes"])
        return self.control.measure(model, task.recording, scale, seed=seed, discount=task.discount)

    @staticmethod
    def _batch(model: OfflineModel, data: Transitions) -> Any:
        rng = np.random.default_rng(0)
        return data.draw(4 * model.batch_size, model.sequence_length, rng=rng)

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """The entry condition, then every hypothesis of the offline half."""
        return central_claims(rows, {name: v.rho for name, v in self.variants.items()})

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Forest plot of all variants, curves along training, dose-response."""
        return draw(rows, {name: v.rho for name, v in self.variants.items()})


def _rounded(row: dict[str, Any]) -> dict[str, Value]:
    """Six significant digits, so that the rows can be committed."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(entry) for entry in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return {name: short(value) for name, value in row.items()}
