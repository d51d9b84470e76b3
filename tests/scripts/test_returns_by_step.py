"""Differences at a step are paired by seed, of the seeds that both variants have there."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from mbrl_flat.cli import main as cli

SCRIPTS = Path(cli.__file__).parents[2] / "scripts"
RETURNS = {
    ("adam", 1): (10.0, 20.0), ("sam", 1): (9.0, 25.0),
    ("adam", 2): (30.0, 40.0), ("sam", 2): (27.0, 47.0),
    ("adam", 3): (50.0, 60.0), ("sam", 3): (50.0,),
}  # fmt: skip


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return lambda name: SimpleNamespace(**runpy.run_path(str(SCRIPTS / f"{name}.py")))


@pytest.fixture
def runs(tmp_path):
    folders = []
    for (variant, seed), returns in RETURNS.items():
        folder = tmp_path / f"{variant}_{seed}"
        folder.mkdir()
        names = f"names: {{variant: {variant}, optimizer: adam}}\n"
        (folder / "config.yaml").write_text(f"{names}seed: {seed}\n", encoding="utf-8")
        rows = [{"step": 0, "frame": 0, "time": 0.0, "train/loss": 1.0}]
        for step, value in zip((6000, 12000), returns, strict=False):
            rows.append({"step": step, "frame": 0, "time": 0.0, "eval/return_mean": value})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
        folders.append(str(folder))
    return folders


def test_runs_and_the_table_of_them_give_the_same_rows(load, runs, tmp_path, capsys):
    script, out = load("returns_by_step"), tmp_path / "longer"
    script.main([*runs, "--pair", "sam-adam", "--out", str(out)])
    printed = capsys.readouterr().out.splitlines()
    # Student's t with two degrees of freedom is 4.303, the standard error of -1, -3, 0 is 0.882;
    # with one it is 12.71, the standard error of 5 and 7 is 1.
    assert printed[2] == "| 6,000 | 3 | 29 | 30 | -1 [-5, 2] |"
    assert printed[3] == "| 12,000 | 2 | 36 | 30 | 6 [-7, 19] |"
    script.main([f"{out}.csv", "--pair", "sam-adam", "--out", str(out)])
    assert capsys.readouterr().out.splitlines() == printed
    assert out.with_suffix(".png").stat().st_size > 0


def test_claims_on_longer_runs(load, runs, tmp_path, capsys):
    report = tmp_path / "seeds.csv"
    report.write_text("task,label,seed,final_return,lambda_max\ncart,adam,1,1,1\n")
    load("returns_by_step").main([*runs, "--out", str(tmp_path / "longer")])
    load("published_recipe").main([str(report), "--longer", str(tmp_path / "longer.csv")])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| L")]
    assert len(lines) == 2, "18,000 steps were not reached"
    assert "9,000 to 12,000 steps: SAM earns less than Adam" in lines[0]
    assert " 2 | 6 [-6.706, 18.71] | difference of returns" in lines[0]
    # Since then seed 1 gained 5 + 1, seed 2 gained 7 + 3.
    assert " 2 | 8 [-17.41, 33.41] | change of that difference" in lines[1]
