"""Rules about the tree that no linter knows."""

import ast
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mbrl_flat", "agents", "envs")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# Split, so that this file does not contain what it looks for.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK|place" r"holder|for n" r"ow)\b")
MACHINE_PATH = re.compile(r"(?<![\w.~])/(work|root|home|tmp)/")


def name_of(path):
    return str(path.relative_to(ROOT))


def imported(path):
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            yield node.module


def roots(path):
    return {module.split(".")[0] for module in imported(path)}


def test_there_are_sources_to_look_at():
    assert len(SOURCES) > 20


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("mbrl_flat", {"agents", "envs", "tests", "scripts"}),
        ("agents", {"envs", "tests", "scripts"}),
        ("envs", {"agents", "tests", "scripts"}),
    ],
)
def test_imports_point_one_way(package, forbidden):
    wrong = {
        name_of(path): sorted(roots(path) & forbidden)
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == package and roots(path) & forbidden
    }

    assert wrong == {}


def test_only_the_command_line_sees_hydra():
    seen = {name_of(path) for path in SOURCES if roots(path) & {"hydra", "omegaconf"}}

    assert seen <= {"mbrl_flat/cli.py"}


def test_the_package_list_is_what_lies_on_the_disk():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in SOURCES
        if path.name == "__init__.py"
    }

    assert len(settings["packages"]) == len(set(settings["packages"]))
    assert set(settings["packages"]) - {"mbrl_flat.configs"} == folders
    assert settings["package-dir"] == {"mbrl_flat.configs": "configs"}


def test_every_folder_with_sources_is_a_package():
    folders = {path.parent for path in SOURCES}

    assert [name_of(path) for path in folders if not (path / "__init__.py").is_file()] == []


@pytest.mark.parametrize("package", ["agents", "envs"])
def test_names_as_common_as_these_belong_to_no_other_distribution(package):
    assert set(metadata.packages_distributions()[package]) == {"mbrl-flat"}


def test_no_source_file_is_longer_than_three_hundred_lines():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}

    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_no_file_is_a_drawer_for_anything():
    drawers = {"utils", "util", "helpers", "helper", "misc", "common"}

    assert [name_of(path) for path in [*SOURCES, *TESTS] if path.stem in drawers] == []


def test_nothing_is_left_unfinished():
    found = {
        name_of(path): match.group()
        for path in [*SOURCES, *TESTS]
        if (match := UNFINISHED.search(path.read_text(encoding="utf-8")))
    }

    assert found == {}


def test_nothing_names_a_folder_of_one_machine():
    found = {
        name_of(path): match.group()
        for path in [*SOURCES, *TESTS]
        if (match := MACHINE_PATH.search(path.read_text(encoding="utf-8")))
    }

    assert found == {}


def test_every_test_module_has_a_name_of_its_own():
    names = [path.stem for path in TESTS if path.stem != "conftest"]

    assert sorted(names) == sorted(set(names))
    assert [name_of(path) for path in TESTS if path.name == "__init__.py"] == []


def test_sources_are_ascii():
    found = [name_of(path) for path in SOURCES if not path.read_text(encoding="utf-8").isascii()]

    assert found == []
