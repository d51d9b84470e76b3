"""The page of results counts the verdicts of the studies, each row of which stands once."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from mbrl_flat.cli import main as cli
from mbrl_flat.studies.framework.claims import VERDICTS

ROOT = Path(cli.__file__).parents[2]
STUDIES = ROOT / "docs" / "studies"
script = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "study_report.py")))
COUNTS = re.compile(
    r"^\| \[.*\]\(\.\./studies/(\w+)/README\.md\) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", re.M
)


def counted() -> dict[str, tuple[int, ...]]:
    text = script.RESULTS.read_text(encoding="utf-8")
    return {name: tuple(map(int, counts)) for name, *counts in COUNTS.findall(text)}


def test_the_page_names_every_study_with_claims():
    with_claims = {path.name for path in STUDIES.iterdir() if script.pages_of(path.name)}

    assert set(counted()) == with_claims


@pytest.mark.parametrize("study", counted())
def test_the_page_counts_the_verdicts_of_a_study(study):
    [page] = script.pages_of(study)
    text = page.read_text(encoding="utf-8")

    assert counted()[study] == tuple(text.count(f"| **{verdict}** |") for verdict in VERDICTS)


def test_the_total_is_the_sum_of_the_studies():
    text = script.RESULTS.read_text(encoding="utf-8")
    [total] = re.findall(r"^\| all \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.M)

    assert tuple(map(int, total)) == tuple(map(sum, zip(*counted().values(), strict=True)))


@pytest.mark.parametrize("study", counted())
def test_the_tables_of_a_study_are_made_of_its_rows(study):
    assert script.main([study, "--check"]) == 0
