"""Claims and figures of the study of weight decay at the edge of stability."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import PALETTE, add_legend, make_panels
from mbrl_flat.analysis.stats import t_interval
from mbrl_flat.studies.framework import Claim, TrialRows, not_tested, paired_claim, sign_claim

_LARGE, _SMALL = 0.02, 0.005


def make_claims(rows: TrialRows) -> list[Claim]:
    """Hold the rows against the paper's claims.

    Args:
        rows: Of the whole study.

    Returns:
        One line a claim; D1 to D4 are predictions of the account given here, not the paper's.
    """
    mlp, cnn = rows.where(sweep="mlp"), rows.where(sweep="cnn")
    return [
        *_slowing(mlp, "W1a", "perceptron"),
        *_slowing(cnn, "W1b", "convolutional network"),
        _change(
            cnn.where(weight_decay=_SMALL),
            cnn.where(weight_decay=0.0),
            "W2",
            "In convolutional networks weight decay damps the oscillations at the edge",
            f"deviation of the log-loss between measurements: change, lam {_SMALL}",
            key="log_loss_sd",
            below=0.0,
        ),
        sign_claim(
            "W3a",
            "In perceptrons a large weight decay keeps the sharpness well below 2/eta",
            f"mean sharpness of the last fifth, in units of 2/eta, lam {_LARGE}",
            mlp.where(weight_decay=_LARGE).values("plateau"),
            below=0.95,
        ),
        sign_claim(
            "W3b",
            "Below that transition the sharpness still settles at the edge",
            "the same, lam 0.001",
            mlp.where(weight_decay=0.001).values("plateau"),
            above=0.97,
            below=1.05,
        ),
        sign_claim(
            "W4",
            "The driver is the alignment of the weights with the sharpness gradient",
            "slope of the measured dS/dt on a - lam kappa before the edge, all perceptrons",
            mlp.values("drift_slope"),
            above=0.8,
            below=1.25,
            note="at a stationary point a = lam kappa holds trivially; this is the transient",
        ),
        _change(
            mlp.where(weight_decay=_LARGE),
            mlp.where(weight_decay=0.0),
            "W5a",
            "The effect carries to function space: the tangent kernel's edge is not reached",
            f"eta lambda_max(K) / 2n of the last fifth: change, lam {_LARGE}",
            key="kernel_plateau",
            below=0.0,
        ),
        _change(
            mlp.where(weight_decay=_LARGE),
            mlp.where(weight_decay=0.0),
            "W5b",
            "and the kernel moves less from one measurement to the next",
            f"relative change of the kernel in the last fifth: change, lam {_LARGE}",
            key="kernel_velocity_tail",
            below=0.0,
        ),
        sign_claim(
            "W6",
            "The threshold of the quadratic, 2/eta - lam, misjudges where training settles",
            f"threshold less sharpness, in units of 2/eta, perceptron, lam {_LARGE}",
            [1.0 - 0.1 * _LARGE - v for v in mlp.where(weight_decay=_LARGE).values("plateau")],
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


def _slowing(rows: TrialRows, name: str, network: str) -> list[Claim]:
    return [
        _change(
            rows.where(weight_decay=_LARGE),
            rows.where(weight_decay=0.0),
            name,
            f"Weight decay slows progressive sharpening, {network}",
            f"sharpness after 2 % of the run, in units of 2/eta: change, lam {_LARGE}",
            key="sharpness_2",
            below=0.0,
        )
    ]


def _derived(rows: TrialRows) -> list[Claim]:
    mlp = rows.where(sweep="mlp")
    predicted = mlp.where(weight_decay=0.0).by_seed("critical_weight_decay")
    first_below: dict[int, float] = {}
    for decay in sorted(mlp.distinct("weight_decay"), reverse=True):
        for seed, plateau in mlp.where(weight_decay=decay).by_seed("plateau").items():
            if plateau < 0.95:
                first_below[seed] = decay
    shared = sorted(predicted.keys() & first_below.keys())
    deep, flat = rows.where(sweep="mlp_depth_3"), rows.where(sweep="mlp_depth_1")
    normalised = rows.where(sweep="mlp_layer_norm")
    return [
        sign_claim(
            "D1",
            "Ours: the transition is where a = lam kappa at the edge",
            "lam at which the plateau first falls below 0.95, over a / kappa at the edge at lam 0",
            [first_below[seed] / predicted[seed] for seed in shared],
            above=0.5,
            below=2.0,
        ),
        _change(
            deep.where(weight_decay=_SMALL),
            flat.where(weight_decay=_SMALL),
            "D2",
            "Ours: depth raises kappa / S (Euler: 2 (p - 1) for outputs of degree p)",
            f"kappa / S, three hidden layers less one, lam {_SMALL}",
            key="kappa_over_sharpness",
            above=0.0,
        ),
        sign_claim(
            "D3",
            "Ours: normalisation turns the sign of kappa, so that weight decay sharpens",
            f"kappa / S of the perceptron with LayerNorm, lam {_SMALL}",
            normalised.where(weight_decay=_SMALL).values("kappa_over_sharpness"),
            below=0.0,
        ),
        _change(
            normalised.where(weight_decay=_SMALL),
            normalised.where(weight_decay=0.0),
            "D4",
            "Ours: and the sharpness early in training rises with it",
            f"sharpness after 10 % of the run, LayerNorm: change, lam {_SMALL}",
            key="sharpness_10",
            above=0.0,
        ),
    ]


def _change(
    treated: TrialRows,
    control: TrialRows,
    name: str,
    statement: str,
    metric: str,
    *,
    key: str,
    above: float | None = None,
    below: float | None = None,
) -> Claim:
    return paired_claim(
        name,
        statement,
        metric,
        treated.by_seed(key),
        control.by_seed(key),
        above=above,
        below=below,
    )


def draw(rows: TrialRows) -> dict[str, Figure]:
    """Draw the sharpness along the runs, the plateaus, and what drives them.

    Args:
        rows: Of the whole study.

    Returns:
        Figures by file name.
    """
    names = rows.distinct("sweep")
    curves, panels = make_panels(len(names), title="Sharpness under weight decay, seed 0")
    for axes, name in zip(panels, names, strict=True):
        for number, row in enumerate(r for r in rows.where(sweep=name, seed=0) if not r.diverged):
            color = PALETTE[number % len(PALETTE)]
            label = f"lam {row['weight_decay']:g}"
            axes.plot(row["curve_step"], row["curve_sharpness"], color=color, lw=1, label=label)
        axes.axhline(1.0, color="#555555", lw=1, ls="--")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step")
        axes.set_ylabel("sharpness / (2/eta)")
        add_legend(axes)
    plateaus, (left, right) = make_panels(2, title="Where the sharpness settles, and the alignment")
    for number, name in enumerate(names):
        _against_decay(left, rows.where(sweep=name), "plateau", name, PALETTE[number])
        _against_decay(right, rows.where(sweep=name), "kappa_over_sharpness", name, PALETTE[number])
    left.axhline(1.0, color="#555555", lw=1, ls="--")
    left.set_ylabel("sharpness / (2/eta), last fifth")
    right.axhline(0.0, color="#555555", lw=1, ls="--")
    right.set_ylabel("kappa / S")
    add_legend(left)
    return {"sharpness": curves, "plateau": plateaus, "drift": _draw_drift(rows)}


def _against_decay(axes: Axes, rows: TrialRows, key: str, label: str, color: str) -> None:
    decays: Sequence[float] = sorted(rows.distinct("weight_decay"))
    intervals = [t_interval(rows.where(weight_decay=d).values(key)) for d in decays]
    means = [i.point for i in intervals]
    errors = [[i.point - i.low for i in intervals], [i.high - i.point for i in intervals]]
    axes.errorbar(decays, means, errors, color=color, marker="o", ms=3, lw=1.2, label=label)
    axes.set_xlabel("weight decay")


def _draw_drift(rows: TrialRows) -> Figure:
    figure, (axes,) = make_panels(1, title="What raises and what lowers the sharpness, seed 0")
    chosen: Mapping[float, str] = {0.005: PALETTE[0], 0.02: PALETTE[1]}
    for decay, color in chosen.items():
        for row in rows.where(sweep="mlp", weight_decay=decay, seed=0):
            if row.diverged:
                continue
            step = row["curve_step"]
            axes.plot(step, row["curve_sharpening"], color=color, lw=1.2, label=f"a, lam {decay:g}")
            axes.plot(
                step,
                row["curve_pull"],
                color=color,
                lw=1.2,
                ls="--",
                label=f"lam kappa, lam {decay:g}",
            )
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_xlabel("step")
    axes.set_ylabel("change of S per unit of time")
    add_legend(axes)
    return figure
