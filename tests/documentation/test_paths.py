"""Files that pages, code, configurations and build files name are there."""

import re
import subprocess
from pathlib import Path

from mbrl_flat.cli import main as cli

ROOT = Path(cli.__file__).parents[2]
FOLDERS = "docs|scripts|configs|tests|agents|envs|mbrl_flat|\\.ci|\\.github"
NAMED = re.compile(
    rf"(?<![\w./*-])((?:{FOLDERS})/[\w./-]*?\.(?:md|py|sh|yaml|yml|csv|json|png|gif|svg|c))\b"
)
WRITTEN = re.compile(r"\.ci/\w+\.log|docs/studies/STUDY|configs/\w+/NAME|NAME[._]")
"""Placeholders and what a command writes."""
ENDINGS = (".py", ".md", ".yaml", ".yml", ".toml", ".sh", "Dockerfile", "Makefile", "run", ".j2")
MODULE = re.compile(r"`([\w./-]+\.py)`")
OF_OTHERS = {"tdmpc2/tdmpc2.py"}
"""Modules of other projects."""
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(?:#[^)]*)?\)")


def tracked() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listing.stdout.splitlines() if (ROOT / name).exists()]


def test_every_file_that_is_named_is_there():
    files = tracked()
    missing = []
    for name in (name for name in files if name.endswith(ENDINGS) and "/logs/" not in name):
        text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
        for path in {*NAMED.findall(text)}:
            installed = path.removeprefix("mbrl_flat/")
            known = any((ROOT / each).exists() for each in (path, installed, f"docs/{path}"))
            if not known and not WRITTEN.search(path) and not is_made_by_the_test(name, path):
                missing.append(f"{name}: {path}")

    assert not missing, "\n".join(missing)


def test_every_module_that_a_docstring_or_the_guide_names_is_there():
    files = tracked()
    known = {"/".join(Path(n).parts[start:]) for n in files for start in range(len(Path(n).parts))}
    missing = [
        f"{name}: {module}"
        for name in files
        if name.endswith(".py") or name == "CONTRIBUTING.md"
        for module in MODULE.findall((ROOT / name).read_text(encoding="utf-8"))
        if module.removeprefix("mbrl_flat/") not in known and "NAME" not in module
        if module not in OF_OTHERS
    ]

    assert not missing, "\n".join(missing)


def is_made_by_the_test(file: str, path: str) -> bool:
    """A test may write a file of its own below a temporary folder."""
    return file.startswith("tests/") and not path.startswith(("docs/", "scripts/", "tests/"))


def test_every_link_of_a_page_leads_to_a_file():
    broken = []
    for name in (name for name in tracked() if name.endswith(".md")):
        page = ROOT / name
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{name}: {target}")

    assert not broken, "\n".join(broken)
