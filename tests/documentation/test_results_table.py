"""The README counts what the page of results says."""

import re
from collections import Counter
from pathlib import Path

import pytest

from mbrl_flat import cli

ROOT = Path(cli.__file__).parent.parent
VERDICTS = ("holds", "does not hold here", "not tested")
ROW = re.compile(
    r"^\| \[.*\]\(docs/studies/(\w+)/README\.md\) \| (\d+) \| (\d+) \| (\d+) \|$", re.M
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
    found = Counter(re.findall(rf"\*\*({'|'.join(VERDICTS)})\*\*", sections()[study]))

    assert counted()[study] == tuple(found[verdict] for verdict in VERDICTS)
