"""The README counts what the page of results says."""

import re
from pathlib import Path

import pytest

from mbrl_flat.cli import main as cli

ROOT = Path(cli.__file__).parents[2]
VERDICTS = (
    r"\*\*holds\*\*",
    r"\*\*does not hold here\*\*.*outside the claimed range",
    r"\*\*does not hold here\*\*.*not resolved",
    r"\*\*not tested\*\*",
)
"""As the columns of the README: held, contradicted, not resolved, not tested."""
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

    assert counted()[study] == tuple(len(re.findall(verdict, text)) for verdict in VERDICTS)
    assert sum(counted()[study]) == text.count("**") // 2
