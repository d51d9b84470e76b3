"""A data set of recorded episodes, split into training, validation and test, and a model for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.studies.offline.errors import open_loop_errors, summary, value_agreement
from mbrl_flat.studies.offline.offline_model import OfflineModel
from mbrl_flat.studies.offline.recording import Recording, named_part
from mbrl_flat.studies.offline.transitions import Scale, Transitions


@dataclass(frozen=True, kw_only=True)
class OfflineTask(CheckedSettings):
    """Recorded episodes and how they are split.

    Attributes:
        recording: The data set: its first ``pool`` episodes are for training, the next
            ``validation`` for choosing settings, all others for the report.
        pool: Training episodes there are.
        validation: Validation episodes.
        train: Training episodes that a seed draws from the pool and learns from.
        discount: Of the returns.
        horizon: Longest open-loop prediction K.
    """

    recording: Recording = field(default_factory=Recording)
    pool: int = setting(120, "[1, inf)")
    validation: int = setting(24, "[1, inf)")
    train: int = setting(80, "[1, inf)")
    discount: float = setting(0.95, "[0, 1]")
    horizon: int = setting(10, "[1, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train > self.pool:
            raise UserError(f"train must be at most pool={self.pool}, got {self.train}.")
        if self.pool + self.validation >= self.recording.episodes:
            raise UserError(
                f"pool={self.pool} and validation={self.validation} leave no episode of "
                f"{self.recording.episodes} for the report; record more."
            )

    def split(self, seed: int, *, train: int | None = None) -> dict[str, Transitions]:
        """Episodes by part, standardised by those that this seed learns from.

        Args:
            seed: Determines which episodes are drawn from the pool.
            train: How many; by default ``self.train``.

        Returns:
            ``train``, ``validation`` and ``test``.
        """
        whole = _episodes(self.recording, self.discount)
        learned, end = self._learned(seed, train), self.pool + self.validation
        return {
            "train": learned.standardised(learned),
            "validation": whole.take(np.arange(self.pool, end)).standardised(learned),
            "test": whole.take(np.arange(end, len(whole))).standardised(learned),
        }

    def scale(self, seed: int, *, train: int | None = None) -> Scale:
        """Return what ``split`` standardises observations by."""
        return self._learned(seed, train).scale

    def _learned(self, seed: int, train: int | None) -> Transitions:
        drawn = np.random.default_rng([seed, 2]).permutation(self.pool)[: train or self.train]
        return _episodes(self.recording, self.discount).take(drawn)

    def errors(self, model: OfflineModel, data: Transitions) -> dict[str, Any]:
        """Open-loop errors of a calibrated model: their summary, and the curves."""
        subsequences = data.every(5, model.context + self.horizon)
        curves = open_loop_errors(model, subsequences, self.horizon)
        return {**summary(curves), **{f"{name}_curve": each for name, each in curves.items()}}

    def values(self, model: OfflineModel, data: Transitions) -> dict[str, float]:
        """How well values at recorded states agree with the returns that followed."""
        return value_agreement(model, data.every(5, model.context + 1))


def build_model(
    path: str, settings: Mapping[str, Any], data: Transitions, *, seed: int
) -> OfflineModel:
    """Build a world model for the shapes of some episodes.

    Args:
        path: Dotted path of its class.
        settings: Its settings.
        data: Episodes.
        seed: Determines its weights.

    Returns:
        The model.
    """
    spec = EnvSpec(
        obs={"state": (data.obs.shape[-1],)},
        action=Continuous(dim=data.action.shape[-1]),
        episode_length=data.action.shape[1],
    )
    torch.manual_seed(seed)
    return named_part(path)(spec, **settings)


@lru_cache(maxsize=2)
def _episodes(recording: Recording, discount: float) -> Transitions:
    return Transitions.of(recording.load(), length=recording.length, discount=discount)
