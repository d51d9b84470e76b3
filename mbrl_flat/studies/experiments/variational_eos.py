r"""Where training with noisy weights settles: the variational edge of stability.

On quadratics the threshold is checked by simulation. On networks under full-batch variational
gradient descent the sharpness is held against ``(2 / eta) VF(z)``, with ``z = N c / sigma^2`` from
the gradient along the top eigenvector, averaged over the end of the run. IVON and Adam, both
without momentum, are compared by their preconditioned sharpness, whose threshold is 2.

References:
    Ghosh, Cong, Yokota, Ravishankar, Wang, Tao, Khan, Moellenhoff, "Variational Learning Finds
    Flatter Solutions at the Edge of Stability", NeurIPS 2025, arXiv:2506.12903.

Deviations from the paper:
    Digits instead of CIFAR-10, and networks of a few thousand weights; settings are ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

from mbrl_flat.diagnostics.hvp import Hessian
from mbrl_flat.diagnostics.lanczos import lanczos
from mbrl_flat.diagnostics.preconditioned import preconditioned, step_scales
from mbrl_flat.optim.methods.vgd import threshold
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.edge_of_stability.curvature import Curvature
from mbrl_flat.studies.edge_of_stability.descent_map import descent_probability, simulated_threshold
from mbrl_flat.studies.experiments.full_batch import (
    Extra,
    FullBatchDigits,
    Recorder,
    follow,
    full_batch_recipe,
    rounded,
)
from mbrl_flat.studies.experiments.variational_report import draw, make_claims
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, Value
from mbrl_flat.studies.training import StepInfo, accuracy, half_squared_error


@dataclass(frozen=True, kw_only=True)
class Noise(CheckedSettings):
    """Weight noise of one run.

    Attributes:
        sigma: Its scale; 0 is gradient descent.
        samples: Samples a step.
        dof: Degrees of freedom of Student-t noise; null for Gaussian.
    """

    sigma: float = setting(0.0, "[0, inf)")
    samples: int = setting(1, "[1, inf)")
    dof: float | None = setting(None, "(0, inf)")


@dataclass(frozen=True, kw_only=True)
class VariationalEos(CheckedSettings):
    """The study; its settings.

    Attributes:
        variances: Of the noise on quadratics.
        samples: Numbers of samples on quadratics.
        draws: Simulated steps behind each number there.
        quadratic_lr: Step size there.
        task: Data and network of the runs with noise.
        noises: Their noise.
        lr: Their step size.
        steps: Their length.
        vit: Data and network of the transformer.
        vit_noises: Its noise.
        vit_lr: Its step size.
        vit_steps: Its length.
        adam_lr: Learning rate of Adam; its beta1 is 0.
        ivon_lr: Learning rate of IVON; its beta1 is 0.
        ivon_beta2: Decay of its curvature.
        ivon_steps: Length of its runs.
        temperatures: Effective sample sizes of IVON; a smaller one is a wider posterior.
        hess_init: Curvature that IVON starts from.
        seeds: Starts of each run of a network.
        every: Steps between measurements.
    """

    title: ClassVar[str] = "Variational learning at the edge of stability"
    paper: ClassVar[str] = (
        'Ghosh et al., "Variational Learning Finds Flatter Solutions at the Edge of Stability", '
        "NeurIPS 2025, arXiv:2506.12903"
    )

    variances: Sequence[float] = setting((1e-3, 1e-2, 1e-1), "(0, inf)")
    samples: Sequence[int] = setting((1, 4, 16), "[1, inf)")
    draws: int = setting(400_000, "[1, inf)")
    quadratic_lr: float = setting(0.1, "(0, inf)")
    task: FullBatchDigits = field(default_factory=FullBatchDigits)
    noises: Sequence[Noise]
    lr: float = setting(0.2, "(0, inf)")
    steps: int = setting(2000, "[1, inf)")
    vit: FullBatchDigits
    vit_noises: Sequence[Noise]
    vit_lr: float = setting(0.05, "(0, inf)")
    vit_steps: int = setting(500, "[1, inf)")
    adam_lr: float = setting(0.002, "(0, inf)")
    ivon_lr: float = setting(0.2, "(0, inf)")
    ivon_beta2: float = setting(0.9999, "[0, 1)")
    ivon_steps: int = setting(1000, "[1, inf)")
    temperatures: Sequence[float] = setting((1e3, 1e4), "(0, inf)")
    hess_init: float = setting(1.0, "(0, inf)")
    seeds: int = setting(5, "[0, inf)")
    every: int = setting(50, "[1, inf)")

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Quadratics first, then seed by seed."""
        del rows
        quadratics = [
            Trial(kind="quadratic", variance=variance, samples=samples)
            for variance in self.variances
            for samples in self.samples
        ]
        maps = [Trial(kind="map", samples=samples) for samples in self.samples]
        runs: list[Trial] = []
        for seed in range(self.seeds):
            runs += [_noise_cell("mlp", noise, seed) for noise in self.noises]
            runs += [_noise_cell("vit", noise, seed) for noise in self.vit_noises]
            runs.append(Trial(kind="adam", seed=seed))
            runs += [Trial(kind="ivon", ess=ess, seed=seed) for ess in self.temperatures]
        return [*quadratics, *maps, *runs]

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Simulate or train once."""
        kind, seed = cell["kind"], cell.get("seed", 0)
        if kind == "quadratic":
            return self._quadratic(cell["variance"], cell["samples"])
        if kind == "map":
            return self._map(cell["samples"])
        if kind in ("mlp", "vit"):
            values: dict[str, Any] = {f.name: cell[f.name] for f in fields(Noise)}
            return self._noisy(kind, Noise(**values), seed)
        return self._adaptive(kind, cell.get("ess", 0.0), seed)

    def _quadratic(self, variance: float, samples: int) -> dict[str, Value]:
        found = simulated_threshold(
            variance,
            lr=self.quadratic_lr,
            num_samples=samples,
            draws=self.draws,
            rng=np.random.default_rng(0),
        )
        exact = threshold(
            lr=self.quadratic_lr,
            gradient_squared=1.0,
            sigma=float(np.sqrt(variance)),
            num_samples=samples,
        )
        return {"simulated": found, "threshold": exact, "ratio": found / exact}

    def _map(self, samples: int) -> dict[str, Value]:
        curvatures = np.linspace(1.0, 2.0 / self.quadratic_lr, 20)
        variances = np.logspace(-4, 0, 17)
        share = descent_probability(
            curvatures,
            variances,
            lr=self.quadratic_lr,
            num_samples=samples,
            draws=max(self.draws // 200, 1),
            rng=np.random.default_rng(0),
        )
        return {
            "curvatures": curvatures.tolist(),
            "variances": variances.tolist(),
            "descent_probability": share.flatten().tolist(),
        }

    def _noisy(self, kind: str, noise: Noise, seed: int) -> dict[str, Value]:
        task, lr, steps = (
            (self.task, self.lr, self.steps)
            if kind == "mlp"
            else (self.vit, self.vit_lr, self.vit_steps)
        )
        recipe = full_batch_recipe(
            "vgd", lr, steps, sigma=noise.sigma, num_samples=noise.samples, dof=noise.dof
        )
        recorder = follow(task, recipe, seed=seed, every=self.every, extra=lambda *_: _along_top)
        sharpness, squared = recorder.tail("sharpness", 0.4), recorder.tail("along_top", 0.4)
        row: dict[str, Value] = {
            "sharpness": float(sharpness.mean()) * lr / 2.0,
            "final_loss": recorder.curves["loss"][-1],
            "test_accuracy": _test_accuracy(task, recorder),
            "curve_step": rounded(recorder.curves["step"]),
            "curve_sharpness": rounded([s * lr / 2.0 for s in recorder.curves["sharpness"]]),
        }
        if noise.sigma > 0.0 and noise.dof is None:
            limit = threshold(
                lr=lr,
                gradient_squared=float(squared.mean()),
                sigma=noise.sigma,
                num_samples=noise.samples,
            )
            row["threshold"] = limit * lr / 2.0
            row["over_threshold"] = float(sharpness.mean()) / limit
        return row

    def _adaptive(self, kind: str, ess: float, seed: int) -> dict[str, Value]:
        if kind == "adam":
            recipe = full_batch_recipe("adam", self.adam_lr, self.steps, betas=(0.0, 0.999))
        else:
            recipe = full_batch_recipe(
                "ivon",
                self.ivon_lr,
                self.ivon_steps,
                betas=(0.0, self.ivon_beta2),
                ess=ess,
                hess_init=self.hess_init,
                weight_decay=1e-4,
            )
        recorder = follow(
            self.task, recipe, seed=seed, every=self.every, extra=_preconditioned_sharpness
        )
        values = recorder.tail("preconditioned", 0.4)
        return {
            "preconditioned": float(values.mean()) / 2.0,
            "sharpness": float(recorder.tail("sharpness", 0.4).mean()),
            "final_loss": recorder.curves["loss"][-1],
            "test_accuracy": _test_accuracy(self.task, recorder),
            "curve_step": rounded(recorder.curves["step"]),
            "curve_preconditioned": rounded([v / 2.0 for v in recorder.curves["preconditioned"]]),
        }

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """What the rows say of each claim."""
        return make_claims(rows)

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Thresholds, descent maps and sharpness along the runs."""
        return draw(rows)


def _noise_cell(kind: str, noise: Noise, seed: int) -> Trial:
    return Trial(kind=kind, **asdict(noise), seed=seed)


def _along_top(model: nn.Module, here: Curvature, info: StepInfo) -> Mapping[str, float]:
    """Squared component of the gradient along the top eigenvector."""
    del model, info
    return {"along_top": float((here.gradient @ here.top) ** 2)}


def _preconditioned_sharpness(model: nn.Module, x: Tensor, y: Tensor) -> Extra:
    """Largest eigenvalue of the Hessian in the optimizer's own metric."""
    params: list[Tensor] = list(model.parameters())
    loss: Callable[[], Tensor] = lambda: half_squared_error(model(x), y)  # noqa: E731

    def measure(model: nn.Module, here: Curvature, info: StepInfo) -> Mapping[str, float]:
        del model
        scales = step_scales(info.optimizer.base, params)
        assert scales is not None
        product = preconditioned(Hessian(loss, params), scales)
        found = lanczos(product, here.top / scales.sqrt(), max_iterations=40)
        return {"preconditioned": found.lambda_max}

    return measure


def _test_accuracy(task: FullBatchDigits, recorder: Recorder) -> float:
    _, _, others, labels = task.data()
    return 100.0 * accuracy(recorder.model, others, labels)
