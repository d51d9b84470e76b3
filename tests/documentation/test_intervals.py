"""Every interval that a page states is one of a table of results, rounded."""

import csv
import re
from collections import defaultdict
from itertools import permutations
from pathlib import Path

import numpy as np

from mbrl_flat.analysis.stats import t_interval
from mbrl_flat.cli import main as cli

Known = tuple[float, ...]

ROOT = Path(cli.__file__).parents[2]
DOCS = ROOT / "docs"
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e-?\d+)?"
INTERVAL = re.compile(rf"(?<![\w.])({NUMBER})(?: %| points)? \[({NUMBER}), ({NUMBER})\]")

RUNS = ("first_machine", "seeds")
PRINTED = "docs/guides/comparing.md"
"""Shows a table as the command prints it, which test_compare_page.py holds to the command."""


def intervals(lines: list[str]) -> list[tuple[str, str, str]]:
    """Every ``mean [low, high]``, as written."""
    return [found for line in lines for found in INTERVAL.findall(line.replace("\u2212", "-"))]


def of_tables() -> list[Known]:
    """Intervals of the tables of the studies, which other tests hold to their rows."""
    lines = [
        line
        for page in (DOCS / "studies").rglob("*.md")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    found = [tuple(map(float, written)) for written in intervals(lines)]
    # Texts give a difference of shares in percentage points.
    return [tuple(f * x for x in three) for three in found for f in (1.0, 100.0)]


def of_rows(
    paths: list[Path], group: tuple[str, ...], variant: tuple[str, ...], metric: str
) -> list[Known]:
    """Differences of two variants, paired by seed: as they are, and of logarithms in percent."""
    found: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for path in paths:
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            if row.get(metric):
                key = tuple(row[name] for name in (*group, *variant))
                found[key][row["seed"]] = float(row[metric])
    known = []
    for a, b in permutations(found, 2):
        seeds = found[a].keys() & found[b].keys()
        if a[: len(group)] != b[: len(group)] or len(seeds) < 3:
            continue
        pairs = np.array([(found[a][seed], found[b][seed]) for seed in sorted(seeds)])
        plain = t_interval(pairs[:, 0] - pairs[:, 1])
        known.append((plain.point, plain.low, plain.high))
        if (pairs > 0).all():
            log = t_interval(np.log(pairs[:, 0] / pairs[:, 1]))
            known.append(tuple(100 * np.expm1([log.point, log.low, log.high])))
    return known


def rounds_to(value: float, written: str) -> bool:
    """Whether a number, printed with as many digits as ``written``, may read so."""
    digits = len(written.partition(".")[2])
    return abs(value - float(written)) <= 0.5000001 * 10.0**-digits


def is_known(written: tuple[str, str, str], tables: list[Known]) -> bool:
    """Also with the other sign: ``-12 [-19, -4]`` is ``12 [4, 19] lower``."""
    return any(
        all(map(rounds_to, three, written))
        for mean, low, high in tables
        for three in ((mean, low, high), (-mean, -high, -low))
    )


def _text(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r"```text.*?```", "", text, flags=re.S) if page == ROOT / PRINTED else text


def test_every_interval_on_a_page_is_one_of_the_tables_of_the_studies():
    study = [DOCS / "studies" / "world_model_offline" / "results.csv"]
    runs = [DOCS / "studies" / "study_dmc_cpu" / f"{name}.csv" for name in RUNS]
    tables = of_tables()
    for metric in ("state_error_0", "state_error_1", "state_error_last"):
        tables += of_rows(study, ("part", "model"), ("method", "rho", "evaluations"), metric)
    tables += of_rows(runs, ("task",), ("label",), "value_rmse_normalised")
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    unknown = [
        (str(page.relative_to(ROOT)), written)
        for page in pages
        for written in intervals(_text(page).splitlines())
        if not is_known(written, tables)
    ]

    assert len(tables) > 1000
    assert unknown == []
