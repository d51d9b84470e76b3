"""Test the plan of the online half of the central claim: how much of the published gain is SAM's.

Reads the ``seeds.csv`` that ``mbrl-flat-compare --by variant --last 0.5`` writes and prints the
table of claims P1 to P6 (docs/studies/central_claim/plan.md): differences paired by seed, Student's
interval, p-values adjusted over all claims. ``--longer`` adds L1 and L2, of the table that
``returns_by_step.py`` writes of longer runs. ``--page`` replaces the table of a page.

    python scripts/published_recipe.py report/seeds.csv --longer longer.csv --page PAGE.md
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import returns_by_step
from study_report import TABLE
from tables_by_seed import Results, compare, read

from mbrl_flat.analysis.stats import Interval, standard_error, t_quantile
from mbrl_flat.studies.framework import Claim, corrected, sign_claim
from mbrl_flat.studies.framework.report import claims_markdown

RETURNS = (
    ("P1", "the published recipe earns more than Adam", "published", "adam"),
    ("P2", "SAM is the reason: the recipe earns more than without SAM",
     "published", "published_tiny"),
    ("P3", "the changes beside SAM are a reason: the recipe without SAM earns more than Adam",
     "published_tiny", "adam"),
    ("P4", "SAM alone earns more than Adam", "sam", "adam"),
    ("P4", "SAM on encoder and dynamics earns more than Adam", "sam_encoder_dynamics", "adam"),
    ("P5", "all changes that Adam can have earn more", "adam_sides", "adam"),
    ("P5", "losses not divided by the horizon earn more", "adam_undivided", "adam"),
    ("P5", "the policy on encoded observations earns more", "adam_encoded", "adam"),
    ("P5", "clipping by module earns more", "adam_by_module", "adam"),
    ("P5", "the left-over gradient earns more", "adam_left_over", "adam"),
)  # fmt: skip
"""Claim, words, variant and control of the claims on returns."""
FLATTER = ("P6", "SAM makes the recipe's model flatter", "published", "published_tiny")
HEAD = "uncorrected verdict"
"""Column by which the table is found; ``study_report.py`` looks after those with a ``verdict``."""
LATER = ((9000, 12000), (15000, 18000))
"""Steps from and to which longer runs are compared; L2 compares them with ``BEFORE``."""
BEFORE = (3000, 6000)
_POWER = 0.8416  # 80 % quantile of the normal distribution


def claims_of(results: Results, longer: returns_by_step.Curves | None = None) -> list[Claim]:
    """Claims of every task.

    Args:
        results: Value by task, column, variant and seed.
        longer: Returns of longer runs of SAM and Adam.

    Returns:
        The claims, adjusted for their number; one of a variant without runs is "not tested".
    """
    found: list[Claim] = []
    for task, columns in results.items():
        for name, words, variant, control in RETURNS:
            each = compare(columns["final_return"], variant, control, ratio=False)
            found.append(
                sign_claim(name, f"{task}: {words}", "difference of returns", each.tolist(),
                           above=0.0, note=detectable(each))
            )  # fmt: skip
        name, words, variant, control = FLATTER
        ratios = compare(columns["lambda_max"], variant, control, ratio=True)
        metric = "largest Hessian eigenvalue, ratio"
        flatter = sign_claim(name, f"{task}: {words}", metric, np.log(ratios).tolist(), below=0.0)
        found.append(replace(flatter, interval=Interval(*map(math.exp, flatter.interval))))
    return corrected([*found, *_of_longer_runs(longer or {})])


def _of_longer_runs(curves: returns_by_step.Curves) -> list[Claim]:
    """L1 and L2, for each range of steps that two seeds of both variants reach."""
    pair, found = ("sam", "adam"), list[Claim]()
    for first, last in LATER:
        later = returns_by_step.differences(curves, pair, first, last)
        if len(later) < 2:
            continue
        reached = {
            name: {seed: curve for seed, curve in curves[name].items() if last in curve}
            for name in pair
        }
        caught_up = later - returns_by_step.differences(reached, pair, *BEFORE)
        where = f"{first:,} to {last:,} steps"
        found += [
            sign_claim("L1", f"{where}: SAM earns less than Adam", "difference of returns",
                       later.tolist(), below=0.0, note=detectable(later)),
            sign_claim("L2", f"{where}: SAM has caught up since 3,000 to 6,000 steps",
                       "change of that difference", caught_up.tolist(), above=0.0,
                       note=detectable(caught_up)),
        ]  # fmt: skip
    return found


def detectable(each: np.ndarray) -> str:
    """The difference that these seeds would show with 80 % power."""
    if len(each) < 2:
        return ""
    return f"detectable {(t_quantile(len(each) - 1) + _POWER) * standard_error(each):.3g}"


def put_on_page(claims: Sequence[Claim], page: Path | None) -> str:
    """Return the table of claims, with which the one of a page is replaced if there is a page."""
    table = claims_markdown(claims).replace(" verdict | adj", f" {HEAD} | adj")
    if page:
        text = page.read_text(encoding="utf-8")
        new = TABLE.sub(lambda found: table if HEAD in found[0] else found[0], text)
        page.write_text(new, encoding="utf-8")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, test, print or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("reports", nargs="+", type=Path, metavar="SEEDS.csv")
    parser.add_argument("--longer", type=Path, metavar="RETURNS.csv", help="of longer runs")
    parser.add_argument("--page", type=Path, metavar="PAGE.md", help="replace the table in it")
    options = parser.parse_args(arguments)
    longer = returns_by_step.read(options.longer) if options.longer else None
    claims = claims_of(read(options.reports), longer)
    print(put_on_page(claims, options.page))


if __name__ == "__main__":
    main()
