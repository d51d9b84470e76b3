r"""What weight decay does to the sharpness under full-batch gradient descent.

Every run follows the sharpness S, the two terms that drive it (``a = -grad L . grad S`` and
``lam kappa`` with ``kappa = theta . grad S``) and the tangent kernel. Under the flow
``dS/dt = a - lam kappa``; a run whose two terms meet before S reaches ``2 / eta`` stays below.

Weights ahead of a normalisation, whose scale the loss does not feel, have ``-2 S |u_n|^2`` of
kappa, with ``u_n`` the part of the top eigenvector that lies in them; the rest may have any sign.

References:
    Saether, Kolic, Poggio, Beneventano, "Does Weight Decay Enhance Training Stability?",
    arXiv:2605.16622: the claims. Its data, networks and numbers are not known to us: the settings
    here are ours, and so is the account of the mechanism by ``a`` and ``kappa``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from mbrl_flat.errors import UnknownNameError
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.edge_of_stability.curvature import Curvature, drift
from mbrl_flat.studies.edge_of_stability.kernel import (
    kernel_distance,
    kernel_velocity,
    tangent_kernel,
)
from mbrl_flat.studies.edge_of_stability.minimal_example import upward_crossings
from mbrl_flat.studies.experiments.full_batch import (
    FullBatchDigits,
    Recorder,
    follow,
    full_batch_recipe,
    rounded,
)
from mbrl_flat.studies.experiments.weight_decay_report import draw, make_claims
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, Value
from mbrl_flat.studies.models import normalised_weights
from mbrl_flat.studies.training import StepInfo, half_squared_error


@dataclass(frozen=True, kw_only=True)
class DecaySweep(CheckedSettings):
    """Networks of one kind under several weight decays.

    Attributes:
        task: Data and network.
        lr: Step size eta.
        steps: Number of gradient steps of each run.
        weight_decays: Values of lam.
    """

    task: FullBatchDigits = field(default_factory=FullBatchDigits)
    lr: float = setting(0.2, "(0, inf)")
    steps: int = setting(3000, "[1, inf)")
    weight_decays: Sequence[float] = setting((0.0, 0.001, 0.005, 0.01, 0.02, 0.03), "[0, inf)")


@dataclass(frozen=True, kw_only=True)
class WeightDecayEos(CheckedSettings):
    """The study; its settings.

    Attributes:
        sweeps: What can be trained, by name.
        only: Names of those that are.
        seeds: Starts of each.
        every: Steps between measurements.
        probes: Inputs of the tangent kernel.
    """

    title: ClassVar[str] = "Weight decay at the edge of stability"
    paper: ClassVar[str] = (
        'Saether, Kolic, Poggio, Beneventano, "Does Weight Decay Enhance Training Stability?", '
        "arXiv:2605.16622"
    )

    sweeps: Mapping[str, DecaySweep]
    only: Sequence[str]
    seeds: int = setting(5, "[0, inf)")
    every: int = setting(50, "[1, inf)")
    probes: int = setting(20, "[1, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.only:
            if name not in self.sweeps:
                raise UnknownNameError("sweep", name, self.sweeps)

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Seed by seed, so that a stopped study has all settings of some seeds."""
        del rows
        return [
            Trial(sweep=name, weight_decay=decay, seed=seed)
            for seed in range(self.seeds)
            for name in self.only
            for decay in self.sweeps[name].weight_decays
        ]

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Train once with gradient descent."""
        sweep = self.sweeps[cell["sweep"]]
        decay = cell["weight_decay"]
        recorder = follow(
            sweep.task,
            full_batch_recipe("sgd", sweep.lr, sweep.steps, weight_decay=decay),
            seed=cell["seed"],
            every=self.every,
            extra=partial(_Measures, probes=self.probes),
        )
        return summarise(recorder, lr=sweep.lr, weight_decay=decay)

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """What the rows say of each claim."""
        return make_claims(rows)

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Sharpness, drift and kernel."""
        return draw(rows)


class _Measures:
    """Drift of the sharpness, and the tangent kernel now and then."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, *, probes: int) -> None:
        self.loss = lambda: half_squared_error(model(x), y)
        self.params = list(model.parameters())
        ahead = normalised_weights(model) if isinstance(model, nn.Sequential) else []
        self.normalised = [i for i, p in enumerate(self.params) if any(p is q for q in ahead)]
        self.inputs, self.count = x[:probes], probes
        self.first: Tensor | None = None
        self.last: Tensor | None = None

    def __call__(self, model: nn.Module, here: Curvature, _: StepInfo) -> Mapping[str, float]:
        terms = drift(self.loss, self.params, here)
        kernel = tangent_kernel(model, self.inputs)
        if self.first is None or self.last is None:
            self.first = self.last = kernel
        row = {
            "sharpening": terms.sharpening,
            "kappa": terms.kappa,
            "cosine": terms.cosine,
            "weight_norm": terms.weight_norm,
            "kernel_top": float(torch.linalg.eigvalsh(kernel)[-1]) / self.count,
            "kernel_velocity": kernel_velocity(self.last, kernel),
            "kernel_distance": kernel_distance(self.first, kernel),
        }
        if self.normalised:
            row["kappa_normalised"] = float(terms.kappa_by_tensor[self.normalised].sum())
        self.last = kernel
        return row


def summarise(recorder: Recorder, *, lr: float, weight_decay: float) -> dict[str, Value]:
    """Condense the curves of a run.

    Args:
        recorder: The curves.
        lr: Step size eta; sharpness is given in units of ``2 / eta``.
        weight_decay: Coefficient lambda of the squared norm, at least 0.

    Returns:
        Numbers and thinned curves.
    """
    curves = recorder.curves
    unit = 2.0 / lr
    sharpness = np.array(curves["sharpness"]) / unit
    # Networks start sharper than the edge now and then, and leave it at once.
    edge = upward_crossings(sharpness, 1.0)
    tail = recorder.tail("sharpness", 0.2) / unit
    log_loss = recorder.tail("loss", 0.2).log()
    predicted = np.array(curves["sharpening"]) - weight_decay * np.array(curves["kappa"])
    at_edge = int(edge[0]) if len(edge) else len(sharpness) - 1
    return {
        "edge_step": int(curves["step"][at_edge]) if len(edge) else None,
        **{f"sharpness_{round(100 * s)}": recorder.at("sharpness", s) / unit for s in (0.02, 0.1)},
        "plateau": float(tail.mean()),
        "plateau_sd": float(tail.std(unbiased=False)),
        "log_loss_sd": float(torch.diff(log_loss).std(unbiased=False)),
        "final_loss": curves["loss"][-1],
        "kappa_over_sharpness": _over_sharpness(recorder, "kappa"),
        "cosine_tail": float(recorder.tail("cosine", 0.2).mean()),
        "critical_weight_decay": curves["sharpening"][at_edge] / curves["kappa"][at_edge],
        "drift_slope": _drift_slope(curves, predicted, until=at_edge, lr=lr),
        "kernel_plateau": float(recorder.tail("kernel_top", 0.2).mean()) / unit,
        "kernel_velocity_tail": float(recorder.tail("kernel_velocity", 0.2).mean()),
        "kernel_distance_end": curves["kernel_distance"][-1],
        "weight_norm_end": curves["weight_norm"][-1],
        "kappa_normalised_over_sharpness": _over_sharpness(recorder, "kappa_normalised"),
        "curve_step": rounded(curves["step"]),
        "curve_sharpness": rounded(sharpness.tolist()),
        "curve_sharpening": rounded(curves["sharpening"]),
        "curve_pull": rounded((weight_decay * np.array(curves["kappa"])).tolist()),
    }


def _over_sharpness(recorder: Recorder, name: str) -> float | None:
    if name not in recorder.curves:
        return None
    return float((recorder.tail(name, 0.2) / recorder.tail("sharpness", 0.2)).mean())


def _drift_slope(
    curves: Mapping[str, Sequence[float]], predicted: np.ndarray, *, until: int, lr: float
) -> float | None:
    """Slope of the measured change of S on the predicted one before the edge, through zero."""
    steps, sharpness = np.array(curves["step"]), np.array(curves["sharpness"])
    # From the flattest point, as the start changes too fast for differences, to the oscillations.
    begin = 1 + int(np.argmin(sharpness[: max(until, 1)]))
    window = slice(begin, max(until - 1, begin))
    measured = np.diff(sharpness) / (lr * np.diff(steps))
    middle = 0.5 * (predicted[1:] + predicted[:-1])
    x, y = middle[window], measured[window]
    return float((x @ y) / (x @ x)) if len(x) >= 4 else None
