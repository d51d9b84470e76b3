"""Progressive sharpening and the edge of stability in a model of three weights.

Two settings are followed step by step, one that hovers at the edge and one with a single burst; a
sweep of step sizes; and random starts, where the sharpness of the gradient flow's solution has to
tell beforehand whether the edge is reached. Everything is float64 and exact.

References:
    Liu, Zhang, Du, Zhao, "A Minimalist Example of Edge-of-Stability and Progressive Sharpening",
    NeurIPS 2025, arXiv:2503.02809. Its own constants are not known to us; the settings are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import PALETTE, add_legend, make_panels
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.edge_of_stability.minimal_example import MinimalExample, upward_crossings
from mbrl_flat.studies.experiments.sweep_plots import GUIDE
from mbrl_flat.studies.framework import Claim, Trial, TrialRow, TrialRows, not_tested, sign_claim
from mbrl_flat.studies.framework.study import Value

_POINTS = 1500
"""Most points of a curve that a row keeps."""

_PLANE = 1000
"""First steps, each of which the phase plane shows."""

_FLOW_SUBSTEPS = 4


@dataclass(frozen=True, kw_only=True)
class Setting(CheckedSettings):
    """Model, step size and start of one run.

    Attributes:
        l2: Variance of the relevant input; that of the other is 1.
        lr: Step size eta of gradient descent, above 0.
        start: alpha, beta1, beta2.
        steps: Number of gradient steps.
    """

    l2: float = setting(allowed="(0, inf)")
    lr: float = setting(allowed="(0, inf)")
    start: Sequence[float]
    steps: int = setting(allowed="[1, inf)")


@dataclass(frozen=True, kw_only=True)
class EosMinimal(CheckedSettings):
    """The study; its settings.

    Attributes:
        followed: Runs that are drawn step by step, by name.
        lrs: Step sizes of the sweep, from the start of ``one_burst``.
        sweep_steps: Length of each run of the sweep.
        starts: Random starts on which the prediction is tried.
        start_steps: Length of the runs from them.
    """

    title: ClassVar[str] = "A minimalist example of the edge of stability"
    paper: ClassVar[str] = (
        'Liu, Zhang, Du, Zhao, "A Minimalist Example of Edge-of-Stability and Progressive '
        'Sharpening", arXiv:2503.02809'
    )

    followed: Mapping[str, Setting]
    lrs: Sequence[float] = setting(
        (2.05, 2.1, 2.2, 2.5, 2.8, 3.0, 3.2, 3.5, 3.8, 4.2, 5.0), "(0, inf)"
    )
    sweep_steps: int = setting(20_000, "[1, inf)")
    starts: int = setting(100, "[0, inf)")
    start_steps: int = setting(20_000, "[1, inf)")

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """All three kinds at once."""
        del rows
        return [
            *(Trial(kind="followed", setting=name) for name in self.followed),
            *(Trial(kind="sweep", lr=lr) for lr in self.lrs),
            *(Trial(kind="start", seed=seed) for seed in range(self.starts)),
        ]

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Run gradient descent and look at the sharpness along it."""
        if cell["kind"] == "followed":
            setting = self.followed[cell["setting"]]
            path, measured = _run(setting)
            return {**measured, **_curves(setting, path)}
        if cell["kind"] == "sweep":
            burst = self.followed["one_burst"]
            lr = cell["lr"]
            swept = Setting(l2=burst.l2, lr=lr, start=burst.start, steps=self.sweep_steps)
            return _run(swept)[1]
        setting = random_setting(cell["seed"], steps=self.start_steps)
        return {"l2": setting.l2, "step_size": setting.lr, **_run(setting)[1]}

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """What the runs say of the paper's claims."""
        followed, starts = rows.where(kind="followed"), rows.where(kind="start")
        right = [float(r["predicted"] == r["reached"]) for r in starts if not r.diverged]
        return [
            *_followed_claims(followed, followed.where(setting="hovering")),
            sign_claim(
                "M5",
                "Gradient descent ends at the sharpness of its flow's solution",
                "final sharpness over that of the flow's solution there, from random starts",
                starts.values("final_over_solution"),
                above=0.99,
                below=1.01,
            ),
            sign_claim(
                "M6",
                "The edge is reached exactly when the flow's solution from the start lies above it",
                "share of random starts where the prediction is right",
                right,
                above=0.95,
            ),
            not_tested(
                "M7",
                "Explicit non-asymptotic rates of decay of the two parts of the loss",
                "-",
                "the rates are not known to us",
            ),
        ]

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Loss, sharpness and phase plane of the followed runs; the sweep."""
        followed = [row for row in rows.where(kind="followed") if "step" in row]  # with curves
        figures = {str(row["setting"]): _draw_run(row) for row in followed}
        figure, (axes,) = make_panels(1, title="Final sharpness over step size")
        finished = [r for r in rows.where(kind="sweep") if not r.diverged]
        diverged = [float(r["lr"]) for r in rows.where(kind="sweep") if r.diverged]
        axes.plot(
            [r["lr"] for r in finished], [r["final"] for r in finished], "o-", color=PALETTE[0]
        )
        for lr in diverged:
            axes.axvline(lr, color=PALETTE[1], linestyle=":", label=f"diverges at {lr:g}")
        axes.axhline(1.0, **GUIDE)
        axes.set(xlabel="step size eta", ylabel="final sharpness / (2/eta)")
        add_legend(axes)
        figures["step_sizes"] = figure
        return figures


def _followed_claims(followed: TrialRows, hovering: TrialRows) -> list[Claim]:
    return [
        sign_claim(
            "M1",
            "Progressive sharpening and self-stabilisation alternate at the edge",
            "upward crossings of 2/eta in the hovering run",
            hovering.values("crossings"),
            above=7.5,
            note="deterministic",
        ),
        sign_claim(
            "M2",
            "Along the whole path the sharpness stays below (2 + delta)/eta",
            "largest sharpness, in units of 2/eta, in the hovering run",
            hovering.values("peak"),
            below=1.1,
            note="delta's formula is not known to us; 1.1 is our bound",
        ),
        sign_claim(
            "M3",
            "In the last phase the loss falls monotonically at a linear rate",
            "share of falling steps in that phase, the smaller of the two followed runs",
            [min(followed.values("falling"))],
            above=0.999,
            note="deterministic",
        ),
        sign_claim(
            "M4",
            "The sharpness of the flow's solution never rises along gradient descent",
            "largest rise in one step, in units of 2/eta, of the two followed runs",
            [max(followed.values("solution_rise"))],
            below=1e-5,
            note="deterministic",
        ),
    ]


def random_setting(seed: int, *, steps: int) -> Setting:
    """Draw model, step size and start such that about half of the flows end above the edge.

    Args:
        seed: Determines the draw.
        steps: Length of the run.

    Returns:
        The setting; alpha starts near the edge, so that beta1 does not fade away before it.
    """
    rng = np.random.default_rng(seed)
    lr = rng.uniform(1.5, 3.0)
    edge = np.sqrt(2.0 / lr)
    alpha = edge * rng.uniform(0.75, 0.98)
    beta2 = rng.uniform(0.0, 1.0) / alpha
    sign = rng.choice([-1.0, 1.0])
    return Setting(
        l2=float(10.0 ** rng.uniform(-2.5, -1.5)),
        lr=float(lr),
        start=(float(alpha), float(sign * 0.01), float(beta2)),
        steps=steps,
    )


def _run(setting: Setting) -> tuple[np.ndarray, dict[str, Value]]:
    model = MinimalExample(l1=1.0, l2=setting.l2)
    path = model.descend(np.asarray(setting.start), lr=setting.lr, steps=setting.steps)
    unit = 2.0 / setting.lr
    sharpness = model.sharpness(path) / unit
    solution = model.flow_solution_sharpness(path) / unit
    loss = model.loss(path)
    crossings = upward_crossings(sharpness, 1.0)
    # The last phase: from the highest loss after the last crossing down to rounding.
    begin = int(crossings[-1]) if len(crossings) else 0
    begin += int(loss[begin:].argmax())
    end = begin + int((loss[begin:] > 1e-26).sum())
    steps = np.diff(loss[begin:end])
    return path, {
        "crossings": len(crossings),
        "first_crossing": int(crossings[0]) if len(crossings) else None,
        "reached": bool(len(crossings) > 0),
        "predicted": bool(solution[0] > 1.0),
        "solution_at_start": float(solution[0]),
        "peak": float(sharpness.max()),
        "final": float(sharpness[-1]),
        "final_over_solution": float(sharpness[-1] / solution[-1]),
        "solution_rise": float(np.diff(solution).max()),
        "falling": float((steps <= 0.0).mean()) if len(steps) else 1.0,
        "final_loss": float(loss[-1]),
    }


def _curves(setting: Setting, path: np.ndarray) -> dict[str, Value]:
    """Thinned curves; the flow from the same start for comparison."""
    model = MinimalExample(l1=1.0, l2=setting.l2)
    kept = np.unique(np.linspace(0, setting.steps, _POINTS).astype(int))
    oscillating, converging = model.loss_parts(path)
    unit = 2.0 / setting.lr
    # Past the edge a Runge-Kutta step as long as that of descent would be unstable as well.
    fine = _FLOW_SUBSTEPS * setting.steps
    flow = model.flow(np.asarray(setting.start), time=setting.lr * setting.steps, steps=fine)
    flow = flow[::_FLOW_SUBSTEPS]
    return {
        "step": kept.tolist(),
        "oscillating": oscillating[kept].tolist(),
        "converging": converging[kept].tolist(),
        "sharpness": (model.sharpness(path)[kept] / unit).tolist(),
        "solution": (model.flow_solution_sharpness(path)[kept] / unit).tolist(),
        "alpha": path[kept, 0].tolist(),
        "beta1": path[kept, 1].tolist(),
        "plane_alpha": path[:_PLANE, 0].tolist(),
        "plane_beta1": path[:_PLANE, 1].tolist(),
        "flow_alpha": flow[kept, 0].tolist(),
        "flow_beta1": flow[kept, 1].tolist(),
        "edge_alpha": float(np.sqrt(unit)),
    }


def _draw_run(row: TrialRow) -> Figure:
    words = str(row["setting"]).replace("_", " ")
    figure, panels = make_panels(4, title=f"Gradient descent at the edge of stability: {words}")
    loss, sharpness, size, plane = panels
    step = row["step"]
    loss.semilogy(step, np.maximum(row["oscillating"], 1e-30), color=PALETTE[1], lw=0.8)
    loss.semilogy(step, np.maximum(row["converging"], 1e-30), color=PALETTE[0], lw=1.2)
    loss.legend(["oscillating part", "converging part"], frameon=False, fontsize=9)
    loss.set_ylabel("loss")
    sharpness.plot(step, row["sharpness"], color=PALETTE[0], lw=1.0, label="sharpness")
    sharpness.plot(step, row["solution"], color=PALETTE[2], lw=1.2, label="flow's solution")
    sharpness.axhline(1.0, **GUIDE)
    sharpness.set_ylabel("sharpness / (2/eta)")
    size.semilogy(step, np.abs(row["beta1"]), color=PALETTE[1], lw=0.6, label="|beta1|")
    size.semilogy(step, row["alpha"], color=PALETTE[0], lw=1.2, label="alpha")
    for axes in (sharpness, size):
        add_legend(axes)
    for axes in (loss, sharpness, size):
        axes.set_xlabel("step")
    _draw_plane(plane, row)
    return figure


def _draw_plane(axes: Axes, row: TrialRow) -> None:
    x, y = row["plane_beta1"], row["plane_alpha"]
    axes.plot(x, y, ".", color=PALETTE[0], ms=1.5, label=f"first {len(x)} steps of descent")
    axes.plot(row["flow_beta1"], row["flow_alpha"], color=PALETTE[3], lw=1.5, label="flow")
    low = min(*row["plane_alpha"], *row["flow_alpha"])
    axes.plot([0.0, 0.0], [low, row["edge_alpha"]], color=PALETTE[2], lw=2.5, label="stable set")
    axes.axhline(row["edge_alpha"], **GUIDE)
    axes.set(xlabel="beta1", ylabel="alpha")
    add_legend(axes)
