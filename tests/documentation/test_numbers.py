"""Numbers that pages repeat are those of the page or file that they come from."""

import csv
import re
from pathlib import Path

import pytest

from mbrl_flat.cli import main as cli

ROOT = Path(cli.__file__).parents[2]
DOCS = ROOT / "docs"
STUDY = DOCS / "studies" / "study_dmc_cpu" / "README.md"
TASKS = ("cartpole-swingup", "walker-walk")


def rows(page: Path, heading: str = "") -> list[list[str]]:
    """Cells of the tables below a heading, or of all tables."""
    text = page.read_text(encoding="utf-8")
    text = text[text.index(heading) :] if heading else text
    text = text.split("\n## ", 2)[1 if text.startswith("\n## ") else 0] if heading else text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def returns_of_the_study() -> dict[str, list[str]]:
    """Returns on both short tasks by variant: mean with its range."""
    found = {}
    for cells in rows(STUDY):
        if cells[0].startswith("`") and len(cells) == 8 and "against" not in cells[0]:
            found[cells[0].strip("`")] = [cells[2], cells[5]]
    return found


def returns_on_quadruped() -> dict[str, str]:
    text = STUDY.read_text(encoding="utf-8")
    second_half = text[text.index("second half of each run") :]
    table = re.findall(r"^\| `(\w+)` \| 3 \| ([^|]+) \|", second_half, re.MULTILINE)
    return {name: cell.strip() for name, cell in reversed(table)}


def published() -> dict[str, float]:
    with (ROOT / "configs" / "reference" / "dmc.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["task"]: float(row["mean"])
            for row in csv.DictReader(file)
            if row["method"] == "tdmpc2" and row["env_step"] == "4000000"
        }


@pytest.mark.parametrize("number", range(2))
def test_the_readme_has_the_returns_of_the_study(number):
    [row] = [cells for cells in rows(ROOT / "README.md") if cells[0] == TASKS[number]]
    ours = returns_of_the_study()

    shown = ("adam", "sam", "random_direction", "adam_twice")
    assert row[2:6] == [ours[name][number] for name in shown]
    assert row[6] == f"{published()[TASKS[number]]:.0f}"


def test_the_readme_has_the_returns_on_quadruped_walk():
    [row] = [cells for cells in rows(ROOT / "README.md") if cells[0] == "quadruped-walk"]
    ours = returns_on_quadruped()

    shown = ("adam", "sam", "random_direction", "adam_twice")
    assert row[2:6] == [ours[name] for name in shown]
    assert row[6] == f"{published()['quadruped-walk']:.0f}"


def test_the_page_of_results_has_the_returns_of_the_study():
    shown = {
        cells[0].split("`")[1]: cells[1:]
        for cells in rows(DOCS / "results" / "README.md")
        if cells[0].startswith("`") and len(cells) == 3
    }
    ours = returns_of_the_study()

    assert len(shown) == 7
    assert shown == {name: ours[name] for name in shown}


def test_the_readme_counts_claims_and_methods():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = (DOCS / "results" / "README.md").read_text(encoding="utf-8")
    [total] = re.findall(r"^\| all \|([ \d|]+)\|$", results, re.MULTILINE)

    assert f"{sum(map(int, total.split('|')))} claims" in text
    # Files and not the registry: other tests register methods of their own.
    configs = list((ROOT / "configs" / "optimizer").glob("*.yaml"))
    assert f"All {len(configs)} methods" in text
    with_rho = [path for path in configs if "\nrho: " in path.read_text(encoding="utf-8")]
    assert f"| SAM family | {len(with_rho)} methods, with controls |" in text


def test_the_page_of_commands_and_that_of_environments_name_every_environment():
    names = {path.stem for path in (ROOT / "configs" / "env").glob("*.yaml")}
    [shown] = [cells[1] for cells in rows(DOCS / "reference" / "commands.md") if "env=" in cells[0]]
    pages = rows(DOCS / "environments" / "README.md")

    assert set(re.findall(r"`(\w+)`", shown)) == names
    assert {cells[0].split("`")[1] for cells in pages if "`" in cells[0]} - {"env="} == names


def test_the_table_of_choices_is_the_same_everywhere():
    def choices(page: Path) -> list[str]:
        lines = page.read_text(encoding="utf-8").splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("| situation"))
        return [line.replace(", same rho as `sam`", "") for line in lines[start : start + 8]]

    assert choices(ROOT / "README.md") == choices(DOCS / "guides" / "choose_optimizer.md")


def test_the_configuration_page_is_up_to_date():
    import runpy

    script = runpy.run_path(str(ROOT / "scripts" / "site" / "configuration.py"))

    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), (
        "rewrite it: python scripts/site/configuration.py"
    )


AGENTS = {"tdmpc2": "TD-MPC2", "dreamerv3": "DreamerV3", "storm": "STORM", "twister": "TWISTER"}


@pytest.mark.parametrize("agent", [*AGENTS, "random"])
def test_published_numbers_of_an_agent_are_those_of_the_reference_files(agent):
    page = (DOCS / "agents" / f"{agent}.md").read_text(encoding="utf-8")
    lines = page.split("## Beside published numbers")[1].split("\n## ")[0].splitlines()
    titles, checked = [], 0
    for cells in ([c.strip() for c in line.strip("|").split("|")] for line in lines if "|" in line):
        if cells[0] in ("task", "game"):
            titles = cells
            continue
        for title, cell in zip(titles[1:], cells[1:], strict=True):
            if not title.startswith("here") and re.match(r"-?\d", cell):
                named = [m for m, name in AGENTS.items() if name in title]
                method = named[0] if named else title.removeprefix("published ")
                known = reference_texts(cells[0].removeprefix("Atari "), method, agent)
                assert cell in known, (cells[0], title, cell)
                checked += 1
    assert checked >= 4


def reference_texts(task: str, *methods: str) -> set[str]:
    """Every published score of these methods on a task, as pages write it."""
    found = set()
    for name in ("dmc", "atari"):
        path = ROOT / "configs" / "reference" / f"{name}.csv"
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["task"] == task and row["method"] in methods:
                    mean = float(row["mean"])
                    found.add(f"{mean:g}")
                    if row["std"]:
                        found.add(f"{mean:.0f} +- {float(row['std']):.0f}")
    return found
