"""Claims and figures of the study of forgetting in a diffusion model."""

import numpy as np
from matplotlib.figure import Figure

from mbrl_flat.analysis.forest import ForestRow, draw_forest
from mbrl_flat.analysis.plot_style import PALETTE, make_panels
from mbrl_flat.analysis.stats import paired_differences, t_interval
from mbrl_flat.studies.framework import Claim, TrialRows, sign_claim


def diffusion_claims(rows: TrialRows) -> list[Claim]:
    """Hold the rows against the claims; forgetting is in units of squared error of an image."""
    replaying = [policy for policy in rows.distinct("policy") if policy != "none"]
    top, everything = "top_energy", "Top energy forgets less of everything than"
    gains = paired_differences(own_gains(rows, top), own_gains(rows, "bottom_energy"))
    return [
        *_without_replay(rows.where(policy="none")),
        *(
            _less(rows, "D5", f"{policy} replay forgets less than none", (policy, "none"))
            for policy in replaying
        ),
        _less(
            rows,
            "D6",
            "Top energy saves more of the highest tenth than a random choice",
            (top, "random"),
            "forgetting_high",
        ),
        _less(rows, "D7", f"{everything} a random choice", (top, "random")),
        _less(rows, "D7", f"{everything} bottom energy", (top, "bottom_energy")),
        sign_claim(
            "D8",
            "Replay gains more on images of high energy than on those of low energy",
            "gain on the replayed images themselves, top less bottom energy",
            list(gains.values()),
            above=0.0,
        ),
        *(
            _less(
                rows,
                "cost",
                f"{policy} replay learns the second task as well as none",
                (policy, "none"),
                "second_loss",
                below=0.005,
            )
            for policy in replaying
        ),
    ]


def _without_replay(rows: TrialRows) -> list[Claim]:
    return [
        sign_claim(
            "D1",
            "Images of higher energy are forgotten more",
            "Spearman correlation of energy and forgetting, no replay",
            rows.values("energy_correlation_1"),
            above=0.0,
            note=_at_other_widths(rows, "energy"),
        ),
        sign_claim(
            "D2",
            "The rise of the energy goes with forgetting",
            "Spearman correlation of the rise and forgetting, no replay",
            rows.values("rise_correlation_1"),
            above=0.0,
            note=_at_other_widths(rows, "rise"),
        ),
        sign_claim(
            "D3",
            "Energy predicts forgetting beyond how hard an image was before",
            "partial Spearman correlation, error before taken out",
            rows.values("partial_correlation"),
            above=0.0,
        ),
        sign_claim(
            "D4",
            "The tenth of highest energy is forgotten more than that of the lowest",
            "forgetting, highest less lowest tenth, no replay",
            rows.minus(rows, "forgetting_high", "forgetting_low"),
            above=0.0,
        ),
    ]


def _less(
    rows: TrialRows,
    name: str,
    statement: str,
    pair: tuple[str, str],
    metric: str = "forgetting",
    *,
    below: float = 0.0,
) -> Claim:
    policy, other = pair
    words = f"{metric.replace('_', ' ')}, {policy} less {other}"
    difference = rows.where(policy=policy).minus(rows.where(policy=other), metric)
    return sign_claim(name, statement, words, difference, below=below)


def _at_other_widths(rows: TrialRows, kind: str) -> str:
    if not len(rows):
        return ""
    values = [t_interval(rows.values(f"{kind}_correlation_{f}")).point for f in ("0.5", "2")]
    return f"at half and twice the width: {values[0]:.2f} and {values[1]:.2f}"


def own_gains(rows: TrialRows, policy: str) -> dict[int, float]:
    """By how much replay lessens the forgetting of the replayed images themselves, by seed."""
    without = {row["seed"]: row for row in rows.where(policy="none") if not row.diverged}
    gains: dict[int, float] = {}
    for row in rows.where(policy=policy):
        if row.diverged or row["seed"] not in without or not row.get("replayed_curve"):
            continue
        kept = np.array(row["replayed_curve"], np.int64)
        before, after = (np.array(r["forgetting_curve"]) for r in (without[row["seed"]], row))
        gains[row["seed"]] = float((before - after)[kept].mean())
    return gains


_FOREST = {
    "forgetting": "forgetting, all images",
    "forgetting_low": "forgetting, lowest tenth of energy",
    "forgetting_high": "forgetting, highest tenth of energy",
    "second_loss": "loss of the second task",
}
"""What the figure shows of each policy."""


def draw(rows: TrialRows, *, title: str) -> Figure:
    """Draw forgetting by energy, and what the second task costs: each seed of each policy."""
    figure, panels = make_panels(len(_FOREST), columns=2, title=title)
    for number, (axes, (metric, label)) in enumerate(zip(panels, _FOREST.items(), strict=True)):
        forest = [
            ForestRow(
                {"none": "no replay"}.get(str(policy), str(policy).replace("_", " ")),
                rows.where(policy=policy).values(metric),
                color,
            )
            for policy, color in zip(rows.distinct("policy"), PALETTE, strict=False)
        ]
        draw_forest(axes, forest, named=number % 2 == 0)
        axes.set_title(label, fontsize=10)
    return figure
