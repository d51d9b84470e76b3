"""The pages about the optimizers are those that the registry and the docstrings give."""

import importlib.util
from pathlib import Path

import pytest
import torch

from mbrl_flat.optim import OPTIMIZERS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "optimizers"
SPEC = importlib.util.spec_from_file_location(
    "site_optimizers", ROOT / "scripts/site/optimizers.py"
)
SITE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(SITE)
pages, markdown = SITE.pages, SITE.markdown


@pytest.mark.parametrize("page", sorted(pages()))
def test_the_page_is_up_to_date(page):
    written = (FOLDER / page).read_text(encoding="utf-8")

    assert written == pages()[page], (
        "write it again: python scripts/site/optimizers.py docs/optimizers"
    )


def test_there_is_a_page_for_every_optimizer_and_no_other():
    names = {path.stem for path in FOLDER.glob("*.md")} - {"README"}

    assert names == set(OPTIMIZERS)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"adam", "adamw", "sgd"}))
def test_every_method_gives_its_source_and_its_deviations(name):
    page = pages()[f"{name}.md"]

    assert "## References" in page
    assert "## How to choose" in page
    assert "## Settings" in page
    assert "```math" in page
    assert "## Deviations from the paper" in page or not OPTIMIZERS[name].paper


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "rho" in OPTIMIZERS[n].settings])
def test_every_method_with_a_radius_says_how_to_choose_it(name):
    assert "## How to choose rho\n" in pages()[f"{name}.md"]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_example_of_a_page_makes_a_step(name):
    known = {}

    code = pages()[f"{name}.md"].split("```python\n")[1].split("```")[0]
    exec(code, known)  # our own page

    assert torch.isfinite(known["loss"])


def test_equations_and_code_become_markdown():
    text = "One ``x``.\n\n.. math::\n    a &= b, \\\\\n    c &= d\n\nwith :math:`a \\cdot\nb`."

    assert markdown(text) == (
        "One `x`.\n\n```math\n\\begin{aligned}\na &= b, \\\\\nc &= d\n\\end{aligned}\n```\n\n"
        "with $`a \\cdot b`$."
    )
