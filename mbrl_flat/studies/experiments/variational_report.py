"""Claims and figures of the study of variational learning at the edge of stability."""

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mbrl_flat.analysis.forest import ForestRow, draw_forest
from mbrl_flat.analysis.plot_style import INK, add_legend, log_axis, make_panels, method_style
from mbrl_flat.analysis.stats import t_interval
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
    """Draw where the sharpness of each setting settles, and descent maps where they are known.

    Args:
        rows: Of the whole study.

    Returns:
        Figures by file name.
    """
    figure, (plain, adaptive) = make_panels(2, title="Where the sharpness settles, each seed")
    forest: list[ForestRow] = []
    for kind, name in (("mlp", "MLP"), ("vit", "ViT")):
        ours = rows.where(kind=kind)
        for sigma, samples, dof in dict.fromkeys(
            (r["sigma"], r["samples"], r["dof"]) for r in ours
        ):
            words = f"sigma {sigma:g}, N {samples}" if sigma else "no noise"
            words += "" if dof is None else f", Student-t {dof:g}"
            same = ours.where(sigma=sigma, samples=samples, dof=dof)
            forest.append(ForestRow(f"{name}: {words}", same.values("sharpness"), INK))
    draw_forest(plain, forest, reference=1.0)
    plain.set_xlabel("sharpness / (2/eta), mean of the last 40 %")
    widths = [("Adam", rows.where(kind="adam"), "adam")]
    ivon = rows.where(kind="ivon")
    widths += [
        (f"IVON, {ess:g} samples", ivon.where(ess=ess), "ivon") for ess in ivon.distinct("ess")
    ]
    draw_forest(
        adaptive,
        [
            ForestRow(name, same.values("preconditioned"), method_style(method).color)
            for name, same, method in widths
        ],
        reference=1.0,
    )
    adaptive.set_xlabel("preconditioned sharpness / threshold")
    maps = rows.where(kind="map")
    known = len(maps) > 0 and all("descent_probability" in row for row in maps)
    return {"sharpness": figure} | ({"descent_maps": _maps(rows)} if known else {})


def _maps(rows: TrialRows) -> Figure:
    maps = rows.where(kind="map")
    figure, panels = make_panels(len(maps), columns=3, title="Probability that a step descends")
    mesh = None
    for axes, row in zip(panels, maps, strict=True):
        curvatures, variances = np.array(row["curvatures"]), np.array(row["variances"])
        share = np.array(row["descent_probability"]).reshape(len(curvatures), len(variances))
        mesh = axes.pcolormesh(variances, curvatures, share, cmap="viridis", vmin=0.0, vmax=1.0)
        same = rows.where(kind="quadratic", samples=row["samples"])
        axes.plot(
            [r["variance"] for r in same], [r["threshold"] for r in same], "o-", color="#D55E00",
            markeredgecolor="white", label="(2/eta) VF, below which the expected loss falls",
        )  # fmt: skip
        axes.grid(visible=False)
        log_axis(axes, "x")
        axes.set_title(
            "1 sample" if row["samples"] == 1 else f"{row['samples']} samples", fontsize=10
        )
        axes.set_xlabel("variance of the noise")
    panels[0].set_ylabel("curvature")
    if mesh is not None:
        figure.colorbar(mesh, ax=panels[-1], label="probability")
    add_legend(*panels)
    return figure
