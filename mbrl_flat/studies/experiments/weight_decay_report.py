"""Claims and figures of the study of weight decay at the edge of stability."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import MARKS, PALETTE, add_legend, make_panels, sequential
from mbrl_flat.studies.experiments.sweep_plots import GUIDE, draw_means
from mbrl_flat.studies.framework import Claim, TrialRows, not_tested, sign_claim

_LARGE, _SMALL = 0.02, 0.005

_PARTS = {"sharpness_2": "2 %", "sharpness_10": "10 %", "plateau": "last fifth"}
"""Sharpness along a run, and when it is measured."""

SWEEPS = {
    "mlp": "MLP",
    "cnn": "CNN",
    "mlp_depth_1": "MLP, one hidden layer",
    "mlp_depth_3": "MLP, three hidden layers",
    "mlp_layer_norm": "MLP with LayerNorm",
}
"""Display names."""


def make_claims(rows: TrialRows) -> list[Claim]:
    """Hold the rows against the paper's claims.

    Args:
        rows: Of the whole study.

    Returns:
        One line a claim; D1 to D4 are predictions of the account given here, not the paper's.
    """
    early = f"sharpness after 2 % of the run, in units of 2/eta: change, lam {_LARGE}"
    slows = "Weight decay slows progressive sharpening,"
    edge = "The effect carries to function space: the tangent kernel's edge is not reached"
    top = f"eta lambda_max(K) / 2n of the last fifth: change, lam {_LARGE}"
    moves = f"relative change of the kernel in the last fifth: change, lam {_LARGE}"
    damps = "In convolutional networks weight decay damps the oscillations at the edge"
    deviation = f"deviation of the log-loss between measurements: change, lam {_SMALL}"
    return [
        _change(rows, "W1a", f"{slows} perceptron", early, ("mlp", "sharpness_2")),
        _change(rows, "W1b", f"{slows} convolutional network", early, ("cnn", "sharpness_2")),
        _change(rows, "W2", damps, deviation, ("cnn", "log_loss_sd"), decay=_SMALL),
        *_settling(rows),
        _change(rows, "W5a", edge, top, ("mlp", "kernel_plateau")),
        _change(
            rows,
            "W5b",
            "and the kernel moves less from one measurement to the next",
            moves,
            ("mlp", "kernel_velocity_tail"),
        ),
        sign_claim(
            "W6",
            "The threshold of the quadratic, 2/eta - lam, misjudges where training settles",
            f"threshold less sharpness, in units of 2/eta, perceptron, lam {_LARGE}",
            [1.0 - 0.1 * _LARGE - v for v in _at(rows, "mlp", _LARGE).values("plateau")],
            above=0.05,
        ),
        *_derived(rows),
        not_tested(
            "W7",
            "Quantitative agreement with the paper's figures",
            "-",
            "its data, networks, step sizes and numbers are not known to us",
        ),
    ]


def _at(rows: TrialRows, sweep: str, decay: float) -> TrialRows:
    return rows.where(sweep=sweep, weight_decay=decay)


def _change(
    rows: TrialRows,
    name: str,
    statement: str,
    metric: str,
    of: tuple[str, str],
    *,
    decay: float = _LARGE,
    rises: bool = False,
) -> Claim:
    """Claim that weight decay lowers a quantity, or raises it."""
    sweep, key = of
    change = _at(rows, sweep, decay).minus(_at(rows, sweep, 0.0), key)
    above, below = (0.0, math.inf) if rises else (-math.inf, 0.0)
    return sign_claim(name, statement, metric, change, above=above, below=below)


def _settling(rows: TrialRows) -> list[Claim]:
    return [
        sign_claim(
            "W3a",
            "In perceptrons a large weight decay keeps the sharpness well below 2/eta",
            f"mean sharpness of the last fifth, in units of 2/eta, lam {_LARGE}",
            _at(rows, "mlp", _LARGE).values("plateau"),
            below=0.95,
        ),
        sign_claim(
            "W3b",
            "Below that transition the sharpness still settles at the edge",
            "the same, lam 0.001",
            _at(rows, "mlp", 0.001).values("plateau"),
            above=0.97,
            below=1.05,
        ),
        sign_claim(
            "W4",
            "The driver is the alignment of the weights with the sharpness gradient",
            "slope of the measured dS/dt on a - lam kappa before the edge, all perceptrons",
            rows.where(sweep="mlp").values("drift_slope"),
            above=0.8,
            below=1.25,
            note="at a stationary point a = lam kappa holds trivially; this is the transient",
        ),
    ]


def _derived(rows: TrialRows) -> list[Claim]:
    mlp = rows.where(sweep="mlp")
    predicted = _at(rows, "mlp", 0.0).by_seed("critical_weight_decay")
    first_below: dict[int, float] = {}
    for decay in sorted(mlp.distinct("weight_decay"), reverse=True):
        below = mlp.where(weight_decay=decay).by_seed("plateau")
        first_below |= {seed: decay for seed, plateau in below.items() if plateau < 0.95}
    deep, flat = (_at(rows, f"mlp_depth_{depth}", _SMALL) for depth in (3, 1))
    return [
        sign_claim(
            "D1",
            "Ours: the transition is where a = lam kappa at the edge",
            "lam at which the plateau first falls below 0.95, over a / kappa at the edge at lam 0",
            [first_below[s] / predicted[s] for s in sorted(predicted.keys() & first_below.keys())],
            above=0.5,
            below=2.0,
        ),
        sign_claim(
            "D2",
            "Ours: depth raises kappa / S (Euler: 2 (p - 1) for outputs of degree p)",
            f"kappa / S, three hidden layers less one, lam {_SMALL}",
            deep.minus(flat, "kappa_over_sharpness"),
            above=0.0,
        ),
        sign_claim(
            "D3",
            "Ours: normalisation turns the sign of kappa, so that weight decay sharpens",
            f"kappa / S of the perceptron with LayerNorm, lam {_SMALL}",
            _at(rows, "mlp_layer_norm", _SMALL).values("kappa_over_sharpness"),
            below=0.0,
        ),
        _change(
            rows,
            "D4",
            "Ours: and the sharpness early in training rises with it",
            f"sharpness after 10 % of the run, LayerNorm: change, lam {_SMALL}",
            ("mlp_layer_norm", "sharpness_10"),
            decay=_SMALL,
            rises=True,
        ),
    ]


def draw(rows: TrialRows) -> dict[str, Figure]:
    """Draw the sharpness along the runs, the plateaus, and what drives them.

    Args:
        rows: Of the whole study.

    Returns:
        Figures by file name; what drives the sharpness needs the curves of a run.
    """
    names = rows.distinct("sweep")
    every = sorted(rows.distinct("weight_decay"))
    colors = dict(zip(every, sequential(len(every)), strict=True))
    curves, panels = make_panels(len(names), columns=3, title="Sharpness along training, each seed")
    for axes, name in zip(panels, names, strict=True):
        for decay in every:
            _along(axes, _at(rows, name, decay), colors[decay], f"{decay:g}")
        axes.axhline(1.0, **GUIDE)
        axes.set_title(str(SWEEPS.get(name, name)), fontsize=10)
        axes.set_xticks(range(len(_PARTS)), list(_PARTS.values()))
    for axes in panels[::3]:
        axes.set_ylabel("sharpness / (2/eta)")
    add_legend(*panels)
    for legend in curves.legends:
        legend.set_title("weight decay")
    plateaus, panels = make_panels(2, title="Where the sharpness settles, and the alignment")
    for axes, key, level, label in (
        (panels[0], "plateau", 1.0, "sharpness / (2/eta), last fifth"),
        (panels[1], "kappa_over_sharpness", 0.0, "kappa / S"),
    ):
        for mark, name in zip(MARKS, names, strict=False):
            decays = sorted(rows.where(sweep=name).distinct("weight_decay"))
            values = [_at(rows, name, decay).values(key) for decay in decays]
            draw_means(axes, decays, values, **mark, ms=5, label=SWEEPS.get(name, name))
        axes.axhline(level, **GUIDE)
        axes.set(xlabel="weight decay", ylabel=label)
    add_legend(*panels)
    figures = {"sharpness": curves, "plateau": plateaus}
    if any("curve_pull" in row for row in rows):
        figures["drift"] = _draw_drift(rows)
    return figures


def _along(axes: Axes, rows: TrialRows, color: str, label: str) -> None:
    """Draw each seed thinly and the mean over seeds."""
    seeds = [[row[part] for part in _PARTS] for row in rows if not row.diverged]
    if not seeds:
        return
    for seed in seeds:
        axes.plot(seed, color=color, lw=0.7, alpha=0.5)
    axes.plot(np.mean(seeds, 0), "-o", color=color, ms=4, lw=1.8, label=label)


def _draw_drift(rows: TrialRows) -> Figure:
    figure, (axes,) = make_panels(1, title="Forces on the sharpness S, one run each")
    for decay, color in ((_SMALL, PALETTE[0]), (_LARGE, PALETTE[1])):
        for row in _at(rows, "mlp", decay).where(seed=0):
            for curve, style, name in (
                ("curve_sharpening", "-", "gradient descent, a"),
                ("curve_pull", "--", "weight decay, lam kappa"),
            ):
                if curve in row:
                    label = f"{name} (lam = {decay:g})"
                    axes.plot(row["curve_step"], row[curve], style, color=color, label=label)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set(xlabel="step", ylabel="rate of change of S")
    add_legend(axes)
    return figure
