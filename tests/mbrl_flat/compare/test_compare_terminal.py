"""What ``mbrl-flat-compare`` prints fits into a terminal."""

import pytest

from mbrl_flat.compare.comparison import compare_runs
from mbrl_flat.compare.runs import find_runs, load_run
from mbrl_flat.compare.terminal import WIDTH, to_text

SHARP = {
    "probe/sharpness/lambda_max": 1246.5,
    "probe/value/rmse_normalised": 2.586,
    "optim/evaluations": 2.0,
}
LONG = {"only": ["encoder", "dynamics", "reward", "termination"], "every": 2}


@pytest.fixture
def rows(make_run, tmp_path):
    for task in ("walker-walk", "cheetah-run"):
        for seed in range(3):
            make_run(task=task, seed=seed, metrics=SHARP, returns=(0.0, 100.0 + seed))
            make_run("sam", task=task, seed=seed, metrics=SHARP, returns=(0.0, 90.0 - seed))
            make_run("sam", task=task, seed=seed, settings=LONG, returns=(0.0, 1e9 / 7.0 + seed))
    runs = [load_run(path) for path in find_runs([str(tmp_path / "runs")])]
    return compare_runs(runs).rows


@pytest.mark.parametrize("width", [50, 80, WIDTH])
def test_no_line_is_wider_than_the_terminal(rows, width):
    lines = to_text(rows, width=width).splitlines()

    assert max(map(len, lines)) <= width
    titles = [line.split(":")[0] for line in lines if "return at 100 steps" in line]
    assert titles == ["cheetah-run", "walker-walk"]
    assert [line.split(" ")[2] for line in lines if line.startswith("  ")].count("adam") == 2
    assert any("termination" in line for line in lines)


def test_returns_and_differences_are_read_first(rows):
    table = to_text([row for row in rows if row.group.task == "walker-walk"][:2]).splitlines()

    assert table[0] == "walker-walk: return at 100 steps; mean over seeds [95 % interval]"
    assert table[1].split("  ")[1] == "group"
    assert table[1].index("return") < table[1].index("difference") < table[1].index("value NRMSE")
    assert "baseline" in table[2]
    assert "-12 [" in table[3]
    assert "(3)" in table[3]
