"""Claims are differences of the plan's variants, paired by seed; those without runs say so."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mbrl_flat.cli import main as cli

SCRIPTS = Path(cli.__file__).parents[2] / "scripts"
ROWS = (
    *("adam,1,100,8", "adam,2,200,9", "adam,3,300,7"),
    *("published,1,131,1", "published,2,230,2", "published,3,329,3"),
    *("published_tiny,1,121,2", "published_tiny,2,220,4", "published_tiny,3,319,6"),
)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return SimpleNamespace(**runpy.run_path(str(SCRIPTS / "published_recipe.py")))


def test_claims_are_the_plans_contrasts(script, tmp_path, capsys):
    report = tmp_path / "seeds.csv"
    lines = ["task,label,seed,final_return,lambda_max", *(f"cart,{row}" for row in ROWS)]
    report.write_text("\n".join(lines), encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("before\n| uncorrected verdict |\n|---|\n| x |\nafter\n", encoding="utf-8")

    script.main([str(report), "--page", str(page)])

    found = {line.split(" | ")[0]: line for line in capsys.readouterr().out.splitlines()}
    # Student's t with two degrees of freedom: 4.303; the standard error of 31, 30, 29 is 0.577.
    assert "**supported** | 3 | 30 [27.52, 32.48] |" in found["| P1"]
    assert "**supported** | 3 | 10 [10, 10] |" in found["| P2"]
    assert "**supported** | 3 | 20 [17.52, 22.48] |" in found["| P3"]
    assert "**supported** | 3 | 0.5 [0.5, 0.5] |" in found["| P6"]
    assert "**not tested** | 0 |" in found["| P5"]
    # 80 % power: (4.303 + 0.842) standard errors.
    assert f"detectable {5.1443 / np.sqrt(3.0):.3g}" in found["| P1"]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n| |")
    assert text.endswith("after\n")
    assert "| x |" not in text
