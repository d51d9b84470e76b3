"""Seeds are paired by their number, and the intervals are those of the textbook."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mbrl_flat.cli import main as cli

SCRIPT = Path(cli.__file__).parents[2] / "scripts" / "tables_by_seed.py"
script = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
HEAD = "task,label,seed,final_return,value_rmse_normalised,lambda_max\n"


def test_the_interval_is_students() -> None:
    # t with two degrees of freedom: 4.302653; the standard error of 1, 2, 3 is 1 / sqrt(3).
    low, middle, high = script.student_interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302653 / np.sqrt(3.0)
    np.testing.assert_allclose((low, middle, high), (2.0 - half, 2.0, 2.0 + half), rtol=1e-6)


def test_pairs_are_of_the_seeds_that_both_have(tmp_path: Path) -> None:
    report = tmp_path / "seeds.csv"
    report.write_text(
        HEAD
        + "walk,adam,1,100,1.0,200\nwalk,adam,2,300,1.0,400\nwalk,adam,7,999,1.0,1\n"
        + "walk,sam,2,310,0.5,100\nwalk,sam,1,105,,50\nwalk,sam,3,0,0.5,1\n",
        encoding="utf-8",
    )
    results, pairs = script.read([report]), [("sam", "adam")]

    assert script.table_of_seeds(results, pairs)[2] == (
        "| `sam` against `adam` | 2 | 5, 10 | -0.5 | 0.25, 0.25 |"
    )
    # t with one degree of freedom: 12.7062; one pair has no interval.
    assert script.table_of_differences(results, pairs)[2] == (
        "| `sam` against `adam` | 2 | 7.5 [-24, 39] | -0.5 | x 0.25 [0.25, 0.25] |"
    )


@pytest.mark.parametrize(("variant", "seeds"), [("adam", 3), ("sam", 1)])
def test_a_later_report_adds_to_an_earlier_one(tmp_path: Path, variant: str, seeds: int) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text(HEAD + "walk,adam,1,1,1,1\nwalk,adam,2,2,1,1\n", encoding="utf-8")
    second.write_text(
        HEAD + "walk,adam,2,5,1,1\nwalk,adam,3,3,1,1\nwalk,sam,1,1,1,1\n", encoding="utf-8"
    )
    results = script.read([first, second])
    assert len(results["walk"]["final_return"][variant]) == seeds
    (row,) = [
        line for line in script.table_of_variants(results, ["adam"]) if f"`{variant}`" in line
    ]
    assert row.startswith(f"| `{variant}` | {seeds} | {'3 [1, 5]' if variant == 'adam' else '1'} |")


def test_tasks_that_are_named_are_shown_alone_and_in_their_order(tmp_path: Path) -> None:
    report = tmp_path / "seeds.csv"
    rows = "".join(f"{task},adam,1,1,1,1\n" for task in ("walk", "swing", "run"))
    report.write_text(HEAD + rows, encoding="utf-8")
    results = script.read([report])
    assert [*script.only(results, ["run", "walk"])] == ["run", "walk"]
    assert [*script.only(results, [])] == ["walk", "swing", "run"]


def test_columns_that_are_named_are_shown_alone_and_in_their_order(tmp_path: Path) -> None:
    report = tmp_path / "seeds.csv"
    report.write_text(
        "task,label,seed,final_return,value_rmse,value_bias,lambda_max\n"
        "walk,adam,1,100,20,3,400\nwalk,sam,1,90,5,-1,100\n",
        encoding="utf-8",
    )
    results = script.only(script.read([report]), [], ["value_rmse", "value_bias"])

    head, _, adam, sam = script.table_of_variants(results, ["adam"])[:4]
    assert head.endswith("| seeds | walk: value error (RMSE) | walk: value bias |")
    assert (adam, sam) == ("| `adam` | 1 | 20 | 3 |", "| `sam` | 1 | 5 | -1 |")
    # An error is compared by its quotient, a bias, which may be negative, by its difference.
    assert script.table_of_seeds(results, [("sam", "adam")])[2] == (
        "| `sam` against `adam` | 1 | 0.25 | -4 |"
    )


def test_names_with_hyphens_make_pairs_and_names_that_are_none_do_not() -> None:
    variants = ["adam", "sam", "sam-on"]
    assert script.parse_pair("sam-on-adam", variants) == ("sam-on", "adam")
    assert script.parse_pair("adam-sam-on", variants) == ("adam", "sam-on")
    with pytest.raises(ValueError, match="sam-adamm is no pair"):
        script.parse_pair("sam-adamm", variants)
