"""Claims and figures of the study of variational learning at the edge of stability."""

from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import PALETTE, add_legend, make_panels
from mbrl_flat.analysis.stats import t_interval
from mbrl_flat.studies.framework import Claim, TrialRows, not_tested, paired_claim, sign_claim

_UNIT = "in units of 2/eta, mean of the last 40 %"


def make_claims(rows: TrialRows) -> list[Claim]:
    """Hold the rows against the paper's claims.

    Args:
        rows: Of the whole study.

    Returns:
        One line a claim.
    """
    mlp = rows.where(kind="mlp")
    gaussian = mlp.where(dof=None)
    single = gaussian.where(samples=1)
    middle = gaussian.where(sigma=0.02)
    ratios = rows.where(kind="quadratic").values("ratio")
    return [
        sign_claim(
            "V1",
            "On a quadratic the expected loss falls exactly below (2/eta) VF",
            "largest deviation of the simulated threshold from the formula, nine settings",
            [max((abs(r - 1.0) for r in ratios), default=float("nan"))] if ratios else [],
            below=0.02,
            note="simulation",
        ),
        sign_claim(
            "V2",
            "Gradient descent hovers at 2/eta",
            f"sharpness, {_UNIT}",
            single.where(sigma=0.0).values("sharpness"),
            above=0.95,
            below=1.05,
        ),
        *_ordered(single, "V3", "sigma", "More noise settles at a lower sharpness", falling=True),
        *_ordered(middle, "V4", "samples", "More samples settle at a higher one", falling=False),
        paired_claim(
            "V4c",
            "and gradient descent, their limit, at the highest",
            f"sharpness without noise less that with 16 samples, {_UNIT}",
            single.where(sigma=0.0).by_seed("sharpness"),
            middle.where(samples=16).by_seed("sharpness"),
            above=0.0,
        ),
        sign_claim(
            "V5",
            "The sharpness of networks settles at the variational threshold",
            "sharpness over threshold with the mean squared gradient, mean of Gaussian settings",
            [_middle(gaussian.where(seed=seed), "over_threshold") for seed in _seeds(gaussian)],
            above=0.8,
            below=1.25,
        ),
        paired_claim(
            "V6",
            "Noise with heavier tails settles flatter",
            f"sharpness, Student-t with 3 degrees of freedom less Gaussian of equal scale, {_UNIT}",
            mlp.where(dof=3.0).by_seed("sharpness"),
            middle.where(samples=1).by_seed("sharpness"),
            below=0.0,
        ),
        *_adaptive(rows),
        *_transformer(rows.where(kind="vit")),
        not_tested(
            "V10",
            "Results on CIFAR-10, SVHN, FashionMNIST and SST-2",
            "-",
            "no such data here; the paper's numbers are figures that could not be read",
        ),
    ]


def _ordered(
    rows: TrialRows, name: str, setting: str, statement: str, *, falling: bool
) -> list[Claim]:
    """One claim for each two neighbours on the grid of a setting."""
    values = sorted(rows.distinct(setting))
    return [
        paired_claim(
            f"{name}{'abcdef'[number]}",
            statement,
            f"sharpness, {setting} {high:g} less {setting} {low:g}, {_UNIT}",
            rows.where(**{setting: high}).by_seed("sharpness"),
            rows.where(**{setting: low}).by_seed("sharpness"),
            below=0.0 if falling else None,
            above=None if falling else 0.0,
        )
        for number, (low, high) in enumerate(pairwise(values))
    ]


def _adaptive(rows: TrialRows) -> list[Claim]:
    ivon = rows.where(kind="ivon")
    widths = sorted(ivon.distinct("ess"))
    claims = [
        sign_claim(
            "V7a",
            "Adam's preconditioned sharpness reaches its threshold",
            "preconditioned sharpness over its threshold, mean of the last 40 %",
            rows.where(kind="adam").values("preconditioned"),
            above=0.95,
            below=1.1,
        )
    ]
    for letter, ess in zip("bcd", widths, strict=False):
        claims.append(
            sign_claim(
                f"V7{letter}",
                "IVON's stays below it",
                f"the same, effective sample size {ess:g}",
                ivon.where(ess=ess).values("preconditioned"),
                below=0.95,
            )
        )
    if len(widths) > 1:
        claims.append(
            paired_claim(
                "V8",
                "A wider posterior keeps it lower",
                f"the same, effective sample size {widths[0]:g} less {widths[-1]:g}",
                ivon.where(ess=widths[0]).by_seed("preconditioned"),
                ivon.where(ess=widths[-1]).by_seed("preconditioned"),
                below=0.0,
            )
        )
    return claims


def _transformer(rows: TrialRows) -> list[Claim]:
    sigmas = sorted(rows.distinct("sigma"))
    if len(sigmas) < 2:
        return []
    return [
        paired_claim(
            "V9",
            "Variational descent is flatter than gradient descent on a transformer too",
            f"sharpness, sigma {sigmas[-1]:g} less none, {_UNIT}",
            rows.where(sigma=sigmas[-1]).by_seed("sharpness"),
            rows.where(sigma=0.0).by_seed("sharpness"),
            below=0.0,
        )
    ]


def draw(rows: TrialRows) -> dict[str, Figure]:
    """Draw descent maps, and the sharpness of networks along training.

    Args:
        rows: Of the whole study.

    Returns:
        Figures by file name.
    """
    curves, panels = make_panels(3, columns=3, title="Sharpness along training, seed 0")
    for axes, kind in zip(panels, ("mlp", "vit"), strict=False):
        for number, row in enumerate(r for r in rows.where(kind=kind, seed=0) if not r.diverged):
            tails = "" if row["dof"] is None else f", t{row['dof']:g}"
            label = f"sigma {row['sigma']:g}, N {row['samples']}{tails}"
            color = PALETTE[number % len(PALETTE)]
            axes.plot(row["curve_step"], row["curve_sharpness"], color=color, lw=1, label=label)
        axes.set_title(kind, fontsize=10)
        axes.set_ylabel("sharpness / (2/eta)")
    for number, kind in enumerate(("adam", "ivon")):
        for row in rows.where(kind=kind, seed=0):
            if not row.diverged:
                name = f"{kind} {row['ess']:g}" if kind == "ivon" else kind
                style = "-" if number == 0 else "--"
                panels[2].plot(
                    row["curve_step"], row["curve_preconditioned"], style, lw=1.2, label=name
                )
    panels[2].set_ylabel("preconditioned sharpness / threshold")
    for axes in panels:
        axes.axhline(1.0, color="#555555", lw=1, ls="--")
        axes.set_xlabel("step")
        add_legend(axes)
    return {"sharpness": curves, "descent_maps": _maps(rows)}


def _maps(rows: TrialRows) -> Figure:
    maps = rows.where(kind="map")
    figure, panels = make_panels(len(maps), columns=3, title="Probability that a step descends")
    for axes, row in zip(panels, maps, strict=True):
        curvatures, variances = np.array(row["curvatures"]), np.array(row["variances"])
        share = np.array(row["descent_probability"]).reshape(len(curvatures), len(variances))
        mesh = axes.pcolormesh(variances, curvatures, share, cmap="viridis", vmin=0.0, vmax=1.0)
        same = rows.where(kind="quadratic", samples=row["samples"])
        axes.plot(
            [r["variance"] for r in same], [r["threshold"] for r in same], "o-", color="#D55E00",
            label="(2/eta) VF",
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_title(f"{row['samples']} samples", fontsize=10)
        axes.set_xlabel("variance of the noise")
        axes.set_ylabel("curvature")
        add_legend(axes)
        figure.colorbar(mesh, ax=axes)
    return figure


def _seeds(rows: TrialRows) -> list[int]:
    return list(rows.by_seed("over_threshold"))


def _middle(rows: TrialRows, metric: str) -> float:
    """Mean over the settings of one seed, which are no independent runs."""
    return t_interval(rows.values(metric)).point
