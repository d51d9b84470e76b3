"""Does a flatter world model predict better? Learned from recorded transitions, without control.

Every method trains on the same batches and spends the same number of gradient evaluations: SAM
makes half as many updates as ``adam_matched``, and as many as ``adam``, which spends half. Radii
are chosen by other seeds on other episodes than those that are reported.

References:
    "Improving Model-Based Reinforcement Learning by Converging to Flatter Minima", NeurIPS 2025:
    sharpness-aware world models are flatter, their value predictions better. The protocol is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.experiments.radius_search import best_radius
from mbrl_flat.studies.experiments.world_model_report import draw, offline_claims
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, Value
from mbrl_flat.studies.offline.fitting import build_optimizer, fit, loss_on, sharpness_on
from mbrl_flat.studies.offline.offline_model import OfflineModel
from mbrl_flat.studies.offline.task import OfflineTask, build_model
from mbrl_flat.studies.offline.transitions import Transitions

METHODS: dict[str, tuple[str, dict[str, Any], float]] = {
    "adam": ("adam", {}, 0.5),
    "adam_matched": ("adam", {}, 1.0),
    "sam": ("sam", {}, 1.0),
    "msam": ("msam", {}, 1.0),
    "vasso": ("vasso", {"theta": 0.2}, 1.0),
    "sam_on": ("sam_on", {}, 1.0),
    "random_direction": ("random_direction", {}, 1.0),
}
"""Name in the registry, settings, and share of the evaluations that is spent."""

CONTROLS = {"random_direction": "sam"}
"""Methods that are run at the radius chosen for another one."""

VALIDATION_SEED = 1000
"""First of the seeds by which radii are chosen."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings(CheckedSettings):
    """A world model and what is tried on it.

    Attributes:
        model: Path of its class, a ``OfflineModel``.
        settings: Its settings.
        lr: Learning rate of Adam.
        radii: Radii that are tried, by method; the methods without one are always run.
    """

    model: str
    settings: Mapping[str, Any]
    lr: float = setting(allowed="(0, inf)")
    radii: Mapping[str, Sequence[float]] = setting(allowed="[0, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for method, values in self.radii.items():
            if method not in METHODS:
                raise UnknownNameError("method", method, METHODS)
            if not values:
                raise UserError(f"{method} has no radius to try; give at least one.")


@dataclass(frozen=True, kw_only=True)
class WorldModelOffline(OfflineTask):
    """The study; its settings beside those of its data set.

    Attributes:
        subjects: World models by name.
        models: Those that are run.
        evaluations: Gradient evaluations of a training.
        tries: Validation seeds at every radius.
        seeds: Seeds at the chosen one: start, batches, and which episodes are learned from.
    """

    title: ClassVar[str] = "World-model learning without control"
    paper: ClassVar[str] = (
        '"Improving Model-Based Reinforcement Learning by Converging to Flatter Minima", '
        "NeurIPS 2025"
    )

    subjects: Mapping[str, ModelSettings]
    models: Sequence[str]
    evaluations: int = setting(1000, "[4, inf)")
    tries: int = setting(2, "[1, inf)")
    seeds: int = setting(5, "[1, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for model in self.models:
            if model not in self.subjects:
                raise UnknownNameError("model", model, self.subjects)

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """All radii on validation seeds; then every method at its own, seed after seed."""
        first = [
            Trial(part="validation", model=model, method=method, rho=float(rho), seed=seed)
            for model in self.models
            for seed in range(VALIDATION_SEED, VALIDATION_SEED + self.tries)
            for method, radii in self.subjects[model].radii.items()
            for rho in radii
        ]
        if len(rows.where(part="validation")) < len(first):
            return first
        return first + [
            Trial(
                part="test", model=model, method=method, rho=self._rho(rows, model, method), seed=s
            )
            for s in range(self.seeds)
            for model in self.models
            for method in METHODS
            if CONTROLS.get(method, method) in self.subjects[model].radii
            or METHODS[method][0] == "adam"
        ]

    def _rho(self, rows: TrialRows, model: str, method: str) -> float:
        """The radius with the best mean validation score; 0 for a method that has none."""
        source = CONTROLS.get(method, method)
        if source not in self.subjects[model].radii:
            return 0.0
        tried = rows.where(part="validation", model=model, method=source)
        return best_radius(tried, self.subjects[model].radii[source], "score")

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Train once and look at the validation or the test episodes."""
        subject, seed = self.subjects[cell["model"]], cell["seed"]
        name, settings, share = METHODS[cell["method"]]
        split = self.split(seed)
        model = build_model(subject.model, subject.settings, split["train"], seed=seed)
        optimizer = build_optimizer(model, name, lr=subject.lr, rho=cell["rho"], settings=settings)
        evaluations = int(share * self.evaluations)
        spent = fit(model, split["train"], optimizer, evaluations=evaluations, seed=seed)
        model.calibrate(split["train"].every(2, 1))
        measured = self.errors(model, split[cell["part"]])
        if cell["part"] == "test":
            measured |= self._fit_and_sharpness(model, split)
        return {"updates": spent.updates, "evaluations": spent.evaluations, **measured}

    def _fit_and_sharpness(
        self, model: OfflineModel, split: Mapping[str, Transitions]
    ) -> dict[str, Value]:
        """Loss and sharpness on as many subsequences of training as of test episodes."""
        length, num = model.sequence_length, 4 * model.batch_size
        row: dict[str, Value] = {}
        for part in ("train", "test"):
            subsequences = split[part].draw(num, length, rng=np.random.default_rng(0))
            row[f"{part}_loss"] = loss_on(model, subsequences)
            sharpness = sharpness_on(model, subsequences)
            row |= {f"{part}_{name}": value for name, value in sharpness.items()}
        return row

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """What the test episodes say of every claim, model after model."""
        tests = rows.where(part="test")
        return [claim for model in self.models for claim in offline_claims(tests, model)]

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Errors along the prediction, and error against sharpness."""
        return {"errors": draw(rows.where(part="test"), self.models, title=self.title)}
