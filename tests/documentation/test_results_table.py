"""The README counts what the page of results says."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from mbrl_flat.cli import main as cli
from mbrl_flat.studies.framework.claims import VERDICTS

ROOT = Path(cli.__file__).parents[2]
script = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "study_report.py")))
ROW = re.compile(
    r"^\| \[.*\]\(docs/studies/(\w+)/README\.md\) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", re.M
)


def sections() -> dict[str, str]:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {re.findall(r"\(studies/(\w+)/README\.md\)", part)[0]: part for part in parts}


def counted() -> dict[str, tuple[int, ...]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return {name: tuple(map(int, counts)) for name, *counts in ROW.findall(text)}


def test_the_readme_names_every_study_with_claims():
    assert list(counted()) == list(sections())


@pytest.mark.parametrize("study", sections())
def test_the_readme_counts_the_verdicts_of_a_study(study):
    text = sections()[study]

    assert counted()[study] == tuple(text.count(f"| **{verdict}** |") for verdict in VERDICTS)
    assert sum(counted()[study]) == text.count("**") // 2


@pytest.mark.parametrize("study", sections())
def test_the_tables_of_a_study_are_made_of_its_rows(study):
    assert script.main([study, "--check"]) == 0
