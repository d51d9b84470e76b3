"""Pages are written by the rules: plain words, short lines, no page that is too long to read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbrl_flat.cli import main as cli

ROOT = Path(cli.__file__).parents[2]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
AVOIDED = {
    r"foretell\w*|foretold": "predict, predicted",
    r"\banew\b": "recomputed, resampled, rerun",
    r"\barms?\b": "variant",
    r"not resolved|is resolved|are resolved": "inconclusive",
    r"displac\w+": "perturbation, perturbed",
    r"\bfilms?\b": "video",
    r"\bpictures?\b": "figure, image",
    r"(goes|go|went|going) on\b": "resumes, continues",
    r"(slice|slices) of (an episode|a recording)": "subsequence",
    r"hours in the loop": "training hours",
    r"measured alike": "not comparable: settings differ",
    r"\b(one|a) sentence\b": "error message",
    r"by heart": "memorising",
    r"rate that warms up": "learning-rate warm-up",
    r"what a radius is worth": "determines the effective radius",
    r"plain to see|leaves? no trace|have no say|has no say": "say what happens",
}
"""Words of the project's private language, and what to write."""
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK_ONLY = re.compile(r"^\s*!?\[.*\]\(.*\)$")
LONGEST_LINE, MOST_WORDS = 120, 1500


def id_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def lines_of(page: Path) -> Iterator[tuple[int, str]]:
    """Lines without tables and lines that are one link."""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.lstrip().startswith("|") and not LINK_ONLY.match(line):
            yield number, line


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_lines_are_short(page):
    long = [f"{page.name}:{n}: {line}" for n, line in lines_of(page) if len(line) > LONGEST_LINE]

    assert not long, "\n".join(long)


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_words_are_those_of_the_field(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = [
        f"{match.group()!r}: write {better}"
        for pattern, better in AVOIDED.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]

    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_pages_are_short(page):
    text = page.read_text(encoding="utf-8")
    prose = "\n".join(line for line in FENCE.sub("", text).splitlines() if not line.startswith("|"))

    assert len(prose.split()) <= MOST_WORDS


def test_the_readme_fits_two_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
