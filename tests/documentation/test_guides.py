"""The Python of a page runs from top to bottom, as a reader would run it."""

import re
from pathlib import Path
from unittest import mock

import pytest

from mbrl_flat.cli import main as cli
from mbrl_flat.optim import OPTIMIZERS

ROOT = Path(cli.__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    if BLOCK.search(page.read_text(encoding="utf-8"))
    # Tested with the model that they speak of: tests/scripts/test_optimizer_pages.py.
    and (page.parent.name != "optimizers" or page.name == "README.md")
]


@pytest.mark.filterwarnings("ignore")  # those of Lightning, transformers and skorch are not ours
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "page"}

    with mock.patch.dict(OPTIMIZERS):  # a page may register a method
        for found in BLOCK.finditer(text):
            # Blank lines before it: an error names the line of the page.
            lines = "\n" * text.count("\n", 0, found.start(1)) + found[1]
            exec(compile(lines, str(page), "exec"), namespace)

    assert len(namespace) > 2
