"""Claims and figures of the study of variational learning at the edge of stability."""

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import PALETTE, add_legend, make_panels
from mbrl_flat.analysis.stats import t_interval
from mbrl_flat.studies.experiments.sweep_plots import GUIDE
from mbrl_flat.studies.framework import Claim, TrialRows, not_tested, sign_claim

_UNIT = "in units of 2/eta, mean of the last 40 %"
_ABOVE: dict[str, Any] = {"above": 0.0}
_BELOW: dict[str, Any] = {"below": 0.0}


def make_claims(rows: TrialRows) -> list[Claim]:
    """Hold the rows against the paper's claims.

    Args:
        rows: Of the whole study.

    Returns:
        One line a claim.
    """
    return [
        *_theory(rows),
        *_noisy(rows.where(kind="mlp")),
        *_adaptive(rows),
        *_transformer(rows.where(kind="vit")),
        not_tested(
            "V10",
            "Results on CIFAR-10, SVHN, FashionMNIST and SST-2",
            "-",
            "no such data here; the paper's numbers are figures that could not be read",
        ),
    ]


def _theory(rows: TrialRows) -> list[Claim]:
    ratios = rows.where(kind="quadratic").values("ratio")
    still = rows.where(kind="mlp", dof=None, samples=1, sigma=0.0).values("sharpness")
    return [
        sign_claim(
            "V1",
            "On a quadratic the expected loss falls exactly below (2/eta) VF",
            "largest deviation of the simulated threshold from the formula, nine settings",
            [max(abs(ratio - 1.0) for ratio in ratios)] if ratios else [],
            below=0.02,
            note="simulation",
        ),
        sign_claim(
            "V2",
            "Gradient descent hovers at 2/eta",
            f"sharpness, {_UNIT}",
            still,
            above=0.95,
            below=1.05,
        ),
    ]


def _noisy(rows: TrialRows) -> list[Claim]:
    gaussian = rows.where(dof=None)
    single, middle = gaussian.where(samples=1), gaussian.where(sigma=0.02)
    seeds = gaussian.by_seed("over_threshold")
    return [
        *_ordered(single, "V3", "sigma", "More noise settles at a lower sharpness", _BELOW),
        *_ordered(middle, "V4", "samples", "More samples settle at a higher one", _ABOVE),
        sign_claim(
            "V4c",
            "and gradient descent, their limit, at the highest",
            f"sharpness without noise less that with 16 samples, {_UNIT}",
            single.where(sigma=0.0).minus(middle.where(samples=16), "sharpness"),
            above=0.0,
        ),
        sign_claim(
            "V5",
            "The sharpness of networks settles at the variational threshold",
            "sharpness over threshold with the mean squared gradient, mean of Gaussian settings",
            # The settings of one seed are no independent runs: their mean counts.
            [t_interval(gaussian.where(seed=s).values("over_threshold")).point for s in seeds],
            above=0.8,
            below=1.25,
        ),
        sign_claim(
            "V6",
            "Noise with heavier tails settles flatter",
            f"sharpness, Student-t with 3 degrees of freedom less Gaussian of equal scale, {_UNIT}",
            rows.where(dof=3.0).minus(middle.where(samples=1), "sharpness"),
            below=0.0,
        ),
    ]


def _ordered(
    rows: TrialRows, name: str, setting: str, statement: str, bound: dict[str, Any]
) -> list[Claim]:
    """One claim for each two neighbours on the grid of a setting."""
    return [
        sign_claim(
            f"{name}{letter}",
            statement,
            f"sharpness, {setting} {high:g} less {setting} {low:g}, {_UNIT}",
            rows.where(**{setting: high}).minus(rows.where(**{setting: low}), "sharpness"),
            **bound,
        )
        for letter, (low, high) in zip(
            "abcdef", pairwise(sorted(rows.distinct(setting))), strict=False
        )
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
    claims += [
        sign_claim(
            f"V7{letter}",
            "IVON's stays below it",
            f"the same, effective sample size {ess:g}",
            ivon.where(ess=ess).values("preconditioned"),
            below=0.95,
        )
        for letter, ess in zip("bcd", widths, strict=False)
    ]
    if len(widths) > 1:
        wide, narrow = (ivon.where(ess=width) for width in (widths[0], widths[-1]))
        words = f"the same, effective sample size {widths[0]:g} less {widths[-1]:g}"
        lower = wide.minus(narrow, "preconditioned")
        claims.append(sign_claim("V8", "A wider posterior keeps it lower", words, lower, **_BELOW))
    return claims


def _transformer(rows: TrialRows) -> list[Claim]:
    sigmas = sorted(rows.distinct("sigma"))
    if len(sigmas) < 2:
        return []
    return [
        sign_claim(
            "V9",
            "Variational descent is flatter than gradient descent on a transformer too",
            f"sharpness, sigma {sigmas[-1]:g} less none, {_UNIT}",
            rows.where(sigma=sigmas[-1]).minus(rows.where(sigma=0.0), "sharpness"),
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
            style = {"color": PALETTE[number % len(PALETTE)], "lw": 1, "label": label}
            axes.plot(row["curve_step"], row["curve_sharpness"], **style)
        axes.set_title(kind, fontsize=10)
        axes.set_ylabel("sharpness / (2/eta)")
    for kind, style in (("adam", "-"), ("ivon", "--")):
        for row in (row for row in rows.where(kind=kind, seed=0) if not row.diverged):
            x, y = row["curve_step"], row["curve_preconditioned"]
            label = f"{kind} {row['ess']:g}" if kind == "ivon" else kind
            panels[2].plot(x, y, style, lw=1.2, label=label)
    panels[2].set_ylabel("preconditioned sharpness / threshold")
    for axes in panels:
        axes.axhline(1.0, **GUIDE)
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
        x, y = same.values("variance"), same.values("threshold")
        axes.plot(x, y, "o-", color="#D55E00", label="(2/eta) VF")
        axes.set_title(f"{row['samples']} samples", fontsize=10)
        axes.set(xscale="log", xlabel="variance of the noise", ylabel="curvature")
        add_legend(axes)
        figure.colorbar(mesh, ax=axes)
    return figure
