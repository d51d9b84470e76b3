"""The tables on the page of the study are those of the logs beside it."""

import csv
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mbrl_flat.cli import main as cli
from mbrl_flat.compare.comparison import compare_runs
from mbrl_flat.compare.runs import find_runs, load_run
from mbrl_flat.compare.tables import to_csv_by_seed

ROOT = Path(cli.__file__).parents[2]
STUDY = ROOT / "docs" / "studies" / "study_dmc_cpu"
script = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "tables_by_seed.py")))
FIRST = ["adam", "sam_tiny", "adam_twice", "random_direction", "sam", "vasso", "msam", "sam_on"]
SHORT_TASKS = ["cartpole-swingup", "walker-walk"]
OF_QUADRUPED = ["final_return", "value_rmse", "value_rmse_normalised", "value_bias", "lambda_max"]


def seeds_csv(pattern: str, folder: Path, *, last: float = 0.1) -> Path:
    runs = [load_run(run) for run in find_runs([str(STUDY / "logs" / pattern)])]
    file = folder / "seeds.csv"
    file.write_text(to_csv_by_seed(compare_runs(runs, by=["variant"], last=last).rows), "utf-8")
    return file


def assert_same_table(ours: Path, theirs: Path) -> None:
    """Equal words, and numbers up to the order in which a machine adds."""
    tables = [list(csv.reader(file.read_text("utf-8").splitlines())) for file in (ours, theirs)]
    assert [row[:4] for row in tables[0]] == [row[:4] for row in tables[1]]
    assert tables[0][0] == tables[1][0]
    numbers = [
        np.array([[float(cell or "nan") for cell in row[4:]] for row in table[1:]])
        for table in tables
    ]
    np.testing.assert_allclose(*numbers, rtol=1e-9)


def rows_of_tables(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `")]


def test_the_tables_of_the_short_tasks_are_made_of_the_logs(tmp_path: Path) -> None:
    file = seeds_csv("*", tmp_path)
    assert_same_table(file, STUDY / "seeds.csv")
    results = script.only(script.read([STUDY / "first_machine.csv", file]), SHORT_TASKS)

    page = rows_of_tables((STUDY / "README.md").read_text("utf-8"))
    made = rows_of_tables("\n".join(script.table_of_variants(results, FIRST)))
    assert len(made) == 9
    assert set(made) <= set(page)


@pytest.mark.parametrize("last", [0.1, 0.5])
def test_the_tables_of_quadruped_walk_are_made_of_the_logs(tmp_path: Path, last: float) -> None:
    file = seeds_csv("*quadruped*", tmp_path, last=last)
    results = script.only(script.read([file]), [], OF_QUADRUPED)

    page = rows_of_tables((STUDY / "README.md").read_text("utf-8"))
    made = rows_of_tables("\n".join(script.table_of_variants(results, FIRST)))
    assert len(made) >= 2
    assert set(made) <= set(page)
