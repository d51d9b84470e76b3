r"""How much return a trained agent keeps in perturbed environments.

For a perturbation of strength ``s`` with mean return ``R(s)`` over episodes of the same seeds,

.. math::
    \mathrm{retained}(s) = 1 - \frac{R(0) - R(s)}{|R(0)|}, \qquad
    \mathrm{auc} = \frac{1}{s_{max}} \int_0^{s_{max}} \mathrm{retained}(s)\, ds

by the trapezoidal rule over the strengths. An agent that loses nothing has an area of 1. For
positive returns ``retained`` is the share ``R(s) / R(0)``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mbrl_flat.analysis.stats import t_interval
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.probe import NothingToMeasure, ProbedRun
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Mode


@dataclass(frozen=True, kw_only=True)
class EnvPerturbation:
    """One kind of perturbation at graded strengths.

    Attributes:
        wrapper: ``wrapper(env, strength)`` makes the perturbed environment; one that takes a
            ``scale`` gets the standard deviations of recorded observations.
        strengths: Increasing, above 0.
        scaled: Whether the wrapper takes ``scale``.
    """

    wrapper: Callable[..., Any]
    strengths: Sequence[float]
    scaled: bool = False

    def __post_init__(self) -> None:
        values = list(self.strengths)
        if not values or values[0] <= 0.0 or values != sorted(set(values)):
            raise UserError(f"Strengths must increase from above 0, got {values}.")

    def at(self, strength: float, scale: Mapping[str, np.ndarray]) -> Callable[[Any], Any]:
        """Make the wrapper of one strength.

        Args:
            strength: One of ``strengths``.
            scale: Standard deviations of recorded observations by name.

        Returns:
            ``wrap(env)``.
        """
        wrapper = partial(self.wrapper, scale=scale) if self.scaled else self.wrapper
        return partial(_at_strength, wrapper, strength)


@dataclass(frozen=True, kw_only=True)
class RobustnessProbe:
    """Returns under perturbations, as ``probe/robustness/*`` of a saved run.

    ``clean_return`` is that without any; each perturbation has ``<name>_return_<strength>`` and
    ``<name>_auc`` with its 95% interval over episodes, ``<name>_auc_low`` and ``<name>_auc_high``.
    Perturbations that an environment does not allow are left out.

    Attributes:
        perturbations: Each by its name.
        mode: ``eval`` plays with the planner where there is one, ``policy`` with the policy.
    """

    perturbations: Mapping[str, EnvPerturbation]
    mode: Mode = "eval"

    def measure_run(self, run: ProbedRun) -> dict[str, float]:
        """Play the same episodes at every strength.

        Args:
            run: The saved run.

        Returns:
            The row.

        Raises:
            NothingToMeasure: If the environment allows none of the perturbations.
        """
        clean = self._returns(run, None)
        row = {"clean_return": float(clean.mean())}
        refused: list[str] = []
        for name, perturbation in self.perturbations.items():
            scale = observation_scale(run.replay) if perturbation.scaled else {}
            try:
                returns = [
                    self._returns(run, perturbation.at(strength, scale))
                    for strength in perturbation.strengths
                ]
            except UserError as reason:
                refused.append(str(reason))
                continue
            for strength, found in zip(perturbation.strengths, returns, strict=True):
                row[f"{name}_return_{strength:g}"] = float(found.mean())
            area = areas(clean, np.stack(returns), perturbation.strengths)
            if area is not None:
                low, mean, high = t_interval(area)
                row[f"{name}_auc"] = mean
                if np.isfinite(low):
                    row |= {f"{name}_auc_low": low, f"{name}_auc_high": high}
        if len(refused) == len(self.perturbations):
            raise NothingToMeasure(f"the environment allows no perturbation: {refused[0]}")
        return {f"probe/robustness/{name}": value for name, value in row.items()}

    def _returns(self, run: ProbedRun, wrap: Callable[[Any], Any] | None) -> np.ndarray:
        episodes = run.play(self.mode, wrap=wrap)
        return np.array([episode.undiscounted_return for episode in episodes])


def areas(clean: np.ndarray, returns: np.ndarray, strengths: Sequence[float]) -> np.ndarray | None:
    """Area under the curve of retained return of each episode.

    Args:
        clean: Returns without perturbation ``[N]``.
        returns: Returns at each strength ``[S, N]``.
        strengths: ``[S]``, increasing, above 0.

    Returns:
        ``[N]``, normalised by the mean clean return; None if that is 0.
    """
    scale = abs(float(clean.mean()))
    if scale == 0.0:
        return None
    # Paired by episode: where an episode starts is no part of what a perturbation costs.
    retained = 1.0 - (clean - np.concatenate([clean[None], returns])) / scale
    return np.asarray(np.trapezoid(retained, [0.0, *strengths], axis=0) / strengths[-1])


def observation_scale(replay: Replay) -> dict[str, np.ndarray]:
    """Standard deviation of each entry of vector observations over the recorded steps."""
    held = replay.arrays["episode"] >= 0
    return {
        name[4:]: array[held].std(0)
        for name, array in replay.arrays.items()
        if name.startswith("obs/") and array.dtype != np.uint8
    }


def _at_strength(wrapper: Callable[..., Any], strength: float, env: Any) -> Any:
    return wrapper(env, strength)
