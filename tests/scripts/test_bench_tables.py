"""The table that the benchmark writes into a page, and what its figures are relative to."""

import importlib.util
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def tables():
    spec = importlib.util.spec_from_file_location("bench_tables", SCRIPTS / "bench_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(name, cpu_ms, task="walker-walk", size="5"):
    return {
        "task": task, "size": size, "name": name, "cpu_ms": cpu_ms, "median_ms": cpu_ms,
        "threads": 1, "device": "cpu",
    }  # fmt: skip


def report(rows):
    return {
        "rows": rows, "machine": "A CPU", "capability": "AVX2", "torch": "2.13", "load_average": 1.0
    }  # fmt: skip


def test_figures_are_relative_to_the_official_code_and_sams_to_adams(tables):
    rows = [row("update adam", 400.0), row("update sam", 600.0), row("official update", 800.0)]

    for one in rows:
        tables.relate(one, rows)

    assert [r.get("ratio") for r in rows] == [2.0, pytest.approx(1.5), None]


def test_a_plan_for_several_states_is_relative_to_plans_one_by_one_not_to_the_official_one(tables):
    rows = [row("act", 10.0), row("act, 8 states at once", 50.0), row("official act", 20.0)]
    rows += [row("act, 8 states one by one", 80.0), row("compiled official act", 15.0)]

    for one in rows:
        tables.relate(one, rows)

    assert [r.get("ratio") for r in rows] == [1.5, pytest.approx(1.6), None, None, None]
    assert "8 states" not in tables.table(report(rows))


def test_the_table_goes_between_the_marks_and_nothing_else_changes(tables, tmp_path):
    page = tmp_path / "speed.md"
    page.write_text(f"# Speed\n{tables.MARKS[0]}\nold\n{tables.MARKS[1]}\nafter\n")
    rows = [row("act", 10.0), row("act", 2.5, size="1"), row("sample", 0.3)]
    rows += [row("update adam", 4.0), row("update sam", 6.0)]
    tables.relate(rows[-1], rows)

    tables.write_table(report(rows), page)

    lines = page.read_text().splitlines()
    assert lines[:2] == ["# Speed", tables.MARKS[0]]
    assert lines[-2:] == [tables.MARKS[1], "after"]
    assert "| | walker-walk, 5 | walker-walk, 1 |" in lines
    assert "| act | 10.0 | 2.5 |" in lines
    assert "| sample | 0.3 |  |" in lines
    assert not any("update sam" in line for line in lines)


def test_a_page_without_marks_is_left_alone(tables, tmp_path):
    page = tmp_path / "speed.md"
    page.write_text("# Speed\n")

    with pytest.raises(ValueError, match="has no marks"):
        tables.write_table(report([row("act", 1.0)]), page)

    assert page.read_text() == "# Speed\n"
