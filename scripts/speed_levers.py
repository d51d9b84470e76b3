"""Say what the settings that save time cost in returns.

Reads ``seeds.csv`` files that ``mbrl-flat-compare --by variant --last 0.5`` writes and prints the
table of claims of docs/studies/speed_levers/plan.md: differences paired by seed, Student's
interval, p-values adjusted over all claims. ``--page`` replaces the table of a page.

    python scripts/speed_levers.py with.csv without.csv --page PAGE.md
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from published_recipe import detectable, put_on_page
from tables_by_seed import Results, compare, read

from mbrl_flat.analysis.stats import Interval
from mbrl_flat.studies.framework import Claim, corrected, sign_claim

SETTINGS = (
    ("S1", "SAM's first gradient on half the batch", "sam_half_batch", "sam"),
    ("S2", "SAM's first gradient in bfloat16", "sam_bfloat16", "sam"),
    ("S3", "plans valued in bfloat16", "adam_bfloat16_plans", "adam"),
)
"""Claim, words, variant, and the variant without the setting."""
MARGIN = 100.0
"""Loss of return below which a setting counts as harmless."""


def claims_of(results: Results) -> list[Claim]:
    """Two claims of every setting and task: that it costs less than the margin, and that it costs.

    Args:
        results: Value by task, column, variant and seed.

    Returns:
        The claims, adjusted for their number; those on eigenvalues (S4) have an interval alone.
    """
    found: list[Claim] = []
    for task, columns in results.items():
        for name, words, variant, control in SETTINGS:
            each = compare(columns["final_return"], variant, control, ratio=False)
            told = {"metric": "difference of returns", "values": each.tolist()}
            note = detectable(each)
            found += [
                sign_claim(
                    name, f"{task}: {words}: costs less than {MARGIN:g}", above=-MARGIN, **told
                ),
                sign_claim(name, f"{task}: {words}: costs returns", below=0.0, note=note, **told),
            ]
    return corrected(found)


def flatness(results: Results) -> list[str]:
    """S4: lines of the ratio of largest eigenvalues of every setting of SAM."""
    lines = list[str]()
    for task, columns in results.items():
        for _, words, variant, control in SETTINGS[:2]:
            ratios = compare(columns["lambda_max"], variant, control, ratio=True)
            if len(ratios) < 2:
                continue
            claim = sign_claim("S4", "", "", np.log(ratios).tolist(), below=0.0)
            flat = replace(claim, interval=Interval(*map(math.exp, claim.interval))).interval
            point = f"x {flat.point:.3g} [{flat.low:.3g}, {flat.high:.3g}]"
            lines.append(f"{task}: {words}: largest eigenvalue {point}")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, test, print or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("reports", nargs="+", type=Path, metavar="SEEDS.csv")
    parser.add_argument("--page", type=Path, metavar="PAGE.md", help="replace the table in it")
    options = parser.parse_args(arguments)
    results = read(options.reports)
    table = put_on_page(claims_of(results), options.page)
    print("\n".join([table, *flatness(results)]))


if __name__ == "__main__":
    main()
