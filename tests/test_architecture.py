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
# From the top: a package imports only those of later lines.
LEVELS = [
    {"cli"},
    {"agents", "envs", "configs"},
    {"sweeps", "studies"},
    {"runs"},
    {"training", "compare"},
    {"evaluation"},
    {"diagnostics"},
    {"optim"},
    {"models"},
    {"logging", "distributed"},
    {"interfaces"},
    {"data"},
    {"runtime", "planning"},
    {"analysis", "settings"},
    {"errors", "specs"},
]
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


def module_of(path):
    """Dotted name under which a source file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "mbrl_flat" else ("mbrl_flat", *parts))


def package_arrows():
    """``{importing package: {imported package}}``, one entry for each part of ``mbrl_flat``."""
    arrows = {}
    for path in SOURCES:
        importer = (*module_of(path).split("."), "")[1]
        for module in imported(path):
            top, _, rest = module.partition(".")
            part = rest.partition(".")[0]
            if top == "mbrl_flat" and part and importer not in (part, "__init__"):
                arrows.setdefault(importer, set()).add(part)
    return arrows


def test_packages_import_only_what_is_below_them():
    arrows = package_arrows()
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    for number, names in enumerate(LEVELS):
        print(number, *sorted(names))

    assert set(arrows) <= set(level)
    upward = {(a, b) for a, below in arrows.items() for b in below if level[a] >= level[b]}
    assert upward == set()


def test_the_root_of_the_library_holds_at_most_five_modules():
    assert len(list((ROOT / "mbrl_flat").glob("*.py"))) <= 5


def test_only_the_command_line_sees_hydra():
    seen = {name_of(path) for path in SOURCES if roots(path) & {"hydra", "omegaconf"}}

    assert {name for name in seen if not name.startswith("mbrl_flat/cli/")} == set()


def test_the_package_list_is_what_lies_on_the_disk():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        module_of(path).removesuffix(".__init__") for path in SOURCES if path.name == "__init__.py"
    }

    assert len(settings["packages"]) == len(set(settings["packages"]))
    assert set(settings["packages"]) - {"mbrl_flat.configs", "mbrl_flat.pretrained"} == folders
    beside = ("agents", "envs", "configs", "pretrained")
    assert settings["package-dir"] == {f"mbrl_flat.{name}": name for name in beside}


def test_every_folder_with_sources_is_a_package():
    folders = {path.parent for path in SOURCES}

    assert [name_of(path) for path in folders if not (path / "__init__.py").is_file()] == []


@pytest.mark.parametrize("package", ["agents", "envs", "configs", "pretrained"])
def test_names_as_common_as_these_are_left_to_other_distributions(package):
    assert "mbrl-flat" not in metadata.packages_distributions().get(package, [])


def test_no_source_file_is_longer_than_about_three_hundred_lines():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}

    assert {name: length for name, length in lengths.items() if length > 320} == {}


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
