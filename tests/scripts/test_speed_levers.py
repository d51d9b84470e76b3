"""What a setting costs: within the margin or not, lower or not, paired with runs without it."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from mbrl_flat.cli import main as cli

SCRIPTS = Path(cli.__file__).parents[2] / "scripts"
HEAD = "task,label,seed,final_return,lambda_max"
WITHOUT = ("sam,1,300,8", "sam,2,310,8", "sam,3,320,8", "adam,1,500,9", "adam,2,510,9")
WITH = (
    *("sam_half_batch,1,250,4", "sam_half_batch,2,261,4", "sam_half_batch,3,269,4"),
    *("sam_bfloat16,1,150,8", "sam_bfloat16,2,161,8", "sam_bfloat16,3,169,8"),
)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return SimpleNamespace(**runpy.run_path(str(SCRIPTS / "speed_levers.py")))


def test_a_setting_is_held_against_the_runs_without_it(script, tmp_path, capsys):
    files = [tmp_path / "with.csv", tmp_path / "without.csv"]
    for file, rows in zip(files, (WITH, WITHOUT), strict=True):
        file.write_text("\n".join([HEAD, *(f"cart,{row}" for row in rows)]), encoding="utf-8")

    script.main([str(file) for file in files])

    out = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in out if line.startswith("| S")]
    verdicts = {(row[1], row[2].split(": ", 1)[1]): (row[3], row[5]) for row in rows}
    # Differences -50, -49, -51 and -150, -149, -151: Student's t 4.303, standard error 0.577.
    half, bfloat16 = "SAM's first gradient on half the batch", "SAM's first gradient in bfloat16"
    mean = "-50 [-52.48, -47.52]"
    assert verdicts["S1", f"{half}: costs less than 100"] == ("**supported**", mean)
    assert verdicts["S1", f"{half}: costs returns"] == ("**supported**", mean)
    mean = "-150 [-152.5, -147.5]"
    assert verdicts["S2", f"{bfloat16}: costs less than 100"] == ("**contradicted**", mean)
    assert verdicts["S2", f"{bfloat16}: costs returns"] == ("**supported**", mean)
    assert verdicts["S3", "plans valued in bfloat16: costs returns"][0] == "**not tested**"
    assert f"cart: {half}: largest eigenvalue x 0.5 [0.5, 0.5]" in out
    assert f"cart: {bfloat16}: largest eigenvalue x 1 [1, 1]" in out
