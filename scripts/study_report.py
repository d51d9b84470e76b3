"""Rewrite the tables of claims of the supervised studies from the rows that are committed.

Usage: ``python scripts/study_report.py [STUDY ...] [--check] [--figures]``. Reads
``docs/studies/STUDY/rows.jsonl`` or ``results.csv`` (a study without them takes seconds and is
computed) and rewrites the table on the study's page and the counts in docs/results/README.md.
A claim about curves, which are not committed, keeps the interval that the page shows. ``--check``
writes nothing and fails if a page differs. ``--figures`` redraws figures; for those
that need curves, ``--measure kind=map seed=0,1`` measures the trials with such a setting once more.
"""

import argparse
import csv
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scipy import stats

from mbrl_flat.analysis.plot_style import save_figure
from mbrl_flat.analysis.stats import Interval
from mbrl_flat.cli.main import compose_study
from mbrl_flat.studies.framework import Claim, Study, TrialRow, TrialRows, corrected, run_study
from mbrl_flat.studies.framework.claims import VERDICTS
from mbrl_flat.studies.framework.report import claims_markdown
from mbrl_flat.studies.framework.rows import RowFile

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "docs" / "studies"
RESULTS = ROOT / "docs" / "results" / "README.md"
TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)
ROW = re.compile(r"^\| \[.*\]\(\.\./studies/(\w+)/README\.md\) \|(?: \d+ \|){4}$", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check the pages; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("studies", nargs="*")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--figures", action="store_true")
    parser.add_argument("--measure", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    texts: dict[Path, str] = {}
    for name in options.studies or studies():
        study = load_study(name)
        rows = load_rows(study, name)
        claims = [known_from_page(name, claim) for claim in study.claims(rows)]
        rewrite_pages(name, corrected(claims), texts)
        if options.figures:
            if options.measure:
                wanted = dict(setting.split("=", 1) for setting in options.measure)
                values = {key: list(map(parse, text.split(","))) for key, text in wanted.items()}
                rows = measured_again(study, rows, values)
            for label, figure in study.figures(rows).items():
                save_figure(figure, STUDIES / name / f"{label}.png")
    stale = [page for page, text in texts.items() if page.read_text("utf-8") != text]
    if options.check:
        for page in stale:
            sys.stderr.write(f"{page.relative_to(ROOT)} differs from the rows.\n")
        return int(bool(stale))
    for page in stale:
        page.write_text(texts[page], encoding="utf-8")
        print(f"rewrote {page.relative_to(ROOT)}")
    return 0


def studies() -> list[str]:
    """Studies with a row of counts in docs/results/README.md, in its order."""
    return ROW.findall(RESULTS.read_text(encoding="utf-8"))


def pages_of(name: str) -> list[Path]:
    """Pages of a study with a table of claims."""
    pages = sorted((STUDIES / name).glob("*.md"))
    return [page for page in pages if "| verdict |" in page.read_text("utf-8")]


def load_study(name: str) -> Study:
    """Build the study with its default settings."""
    return compose_study(f"experiment={name}")


def load_rows(study: Study, name: str) -> TrialRows:
    """Read all rows, or ``results.csv``: numbers, words, nothing where the field is empty."""
    if (STUDIES / name / "rows.jsonl").exists():
        return RowFile(STUDIES / name / "rows.jsonl").rows
    path = STUDIES / name / "results.csv"
    if not path.exists():
        with TemporaryDirectory() as folder:
            return run_study(study, Path(folder), command="").rows
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    rows = [TrialRow({k: parse(v) for k, v in line.items() if v != ""}) for line in lines]
    empty = {k: v for trial in study.cells(TrialRows(rows)) for k, v in trial.items() if v is None}
    return TrialRows([TrialRow({**empty, **row}) for row in rows])


def measured_again(study: Study, rows: TrialRows, wanted: Mapping[str, Any]) -> TrialRows:
    """Measure the trials with these values once more: the file of rows has no curves."""
    trials = [cell for cell in study.cells(rows) if all(cell.get(k) in wanted[k] for k in wanted)]
    for cell in trials:
        print(f"measuring {cell.label}")
    known = [row for row in rows if not any(cell.items() <= row.items() for cell in trials)]
    return TrialRows([*known, *(TrialRow({**cell, **study.measure(cell)}) for cell in trials)])


def parse(text: str) -> float | int | bool | str:
    """The value that was written to a field."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def known_from_page(name: str, claim: Claim) -> Claim:
    """Give a claim about curves, against the bound 0, the interval that the study's page shows."""
    line = re.search(
        rf"^\| {re.escape(claim.name)} \| {re.escape(claim.statement)} \| \*\*[\w ]+\*\* \| (\d+) "
        rf"\| (\S+) \[(\S+), (\S+)\] \|(?:[^|]*\|)? ({'|'.join(VERDICTS)})",
        "\n".join(page.read_text(encoding="utf-8") for page in pages_of(name)),
        re.MULTILINE,
    )
    if claim.verdict != "not tested" or line is None:
        return claim
    seeds, mean, low, high = (float(number) for number in line.groups()[:4])
    error = (high - low) / 2.0 / stats.t.ppf(0.975, seeds - 1)
    return replace(
        claim,
        interval=Interval(low, mean, high),
        num_seeds=int(seeds),
        verdict=line[5],
        note="",
        p_value=float(2.0 * stats.t.sf(abs(mean) / error, seeds - 1)),
    )


def rewrite_pages(name: str, claims: Sequence[Claim], texts: dict[Path, str]) -> None:
    """Put the tables of a study into the pages that show them."""
    own = pages_of(name)
    for page in (RESULTS, *own):
        texts.setdefault(page, page.read_text(encoding="utf-8"))
    for page in own:
        texts[page] = replace_tables(texts[page], claims)
    counts = Counter(claim.corrected for claim in claims)
    cells = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
    row = re.compile(rf"(\(\.\./studies/{name}/README\.md\) \|)[\d |]+\|$", re.MULTILINE)
    texts[RESULTS] = row.sub(rf"\1 {cells} |", texts[RESULTS])


def replace_tables(text: str, claims: Sequence[Claim]) -> str:
    """Replace the tables of claims of a page.

    A page with several tables keeps them: each takes as many claims as it has rows.

    Args:
        text: The page.
        claims: All claims of the study.

    Returns:
        The new page.

    Raises:
        ValueError: If there are more or fewer claims than rows of several tables.
    """
    taken = len(claims)
    tables = [table for table in TABLE.finditer(text) if "| verdict |" in table.group()]
    sizes = [table.group().count("\n") - 2 for table in tables]
    if len(sizes) == 1:
        sizes = [len(claims)]
    if sum(sizes) != len(claims):
        raise ValueError(f"{len(claims)} claims do not fit into tables of {sizes} rows.")
    for table, size in reversed(list(zip(tables, sizes, strict=True))):
        new = claims_markdown(claims[taken - size : taken])
        text = text[: table.start()] + new + text[table.end() :]
        taken -= size
    return text


if __name__ == "__main__":
    sys.exit(main())
