"""What the site has beyond the Markdown files: formulas, generated pages, long lists of pages."""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path

from formulas import render  # noqa: E402

API = (
    "mbrl_flat.optim",
    "mbrl_flat.optim.base",
    "mbrl_flat.optim.groups",
    "mbrl_flat.optim.schedules",
    "mbrl_flat.interfaces",
    "mbrl_flat.specs",
    "mbrl_flat.diagnostics.sharpness",
    "mbrl_flat.diagnostics.value_error",
    "mbrl_flat.diagnostics.rollout_error",
    "mbrl_flat.diagnostics.gauss_newton",
    "mbrl_flat.diagnostics.lanczos",
    "mbrl_flat.diagnostics.hvp",
    "mbrl_flat.planning.mppi",
    "mbrl_flat.models.functional",
    "mbrl_flat.data.replay",
    "mbrl_flat.runs.config",
    "mbrl_flat.analysis.stats",
    "mbrl_flat.agents.tdmpc2.config",
    "mbrl_flat.agents.dreamerv3.config",
    "mbrl_flat.agents.storm.config",
    "mbrl_flat.agents.twister.config",
    "mbrl_flat.envs.wrappers",
)
"""Modules with a page in the reference of the Python interface."""

_PARTS = ("agents", "envs", "configs")
"""Folders of the repository that are installed in the package."""

_CLASS = re.compile(r"^Class: `(mbrl_flat\.optim\.\w+)`", re.MULTILINE)
_OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(?:mbrl_flat|agents|envs|configs|scripts|tests)/[^)]*\)"
)
_ROOT_PAGE = re.compile(r"\((?:\.\./)+(CONTRIBUTING|CHANGELOG|README)\.md(#[^)]*)?\)")


def lay_out_sources(installed: Path) -> None:
    """Link the sources as they are installed, where ``make docs`` has not done so."""
    if not installed.exists():
        installed.mkdir(parents=True)
        for path in (*(ROOT / "mbrl_flat").iterdir(), *map(ROOT.joinpath, _PARTS)):
            (installed / path.name).symlink_to(path)


# As this file is loaded: plugins look for the folder before any event.
lay_out_sources(ROOT / ".typing" / "mbrl_flat")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of optimizers, studies and modules to the navigation."""
    docs = Path(config.docs_dir)
    sections = {title: pages for entry in config.nav or [] for title, pages in entry.items()}
    for path in sorted(docs.glob("optimizers/*.md")):
        if path.name != "README.md":
            sections["Optimizers"].append({path.stem: f"optimizers/{path.name}"})
    for folder in sorted(docs.glob("studies/*/")):
        pages = [path for path in sorted(folder.glob("*.md")) if path.name != "README.md"]
        listed = [{_title(path): f"studies/{folder.name}/{path.name}"} for path in pages]
        if (folder / "README.md").exists():
            first = f"studies/{folder.name}/README.md"
            sections["Results"].append({_title(folder / "README.md"): [first, *listed]})
    modules = [{name.removeprefix("mbrl_flat."): _api_page(name)} for name in API]
    sections["Reference"].append({"Python API": modules})
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the changelog, the guide for contributors and a page for each module."""
    for name in ("CHANGELOG", "CONTRIBUTING"):
        text = (ROOT / f"{name}.md").read_text("utf-8").replace("](docs/", "](")
        files.append(File.generated(config, f"{name.lower()}.md", content=text))
    for module in API:
        text = f"# `{module}`\n\n::: {module}\n    options: {{show_root_heading: false}}\n"
        files.append(File.generated(config, _api_page(module), content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Link every figure to its file: a reader on a small screen opens it at full size."""
    return re.sub(r'(?<!">)(<img [^>]*?src="([^"]+)"[^>]*>)', r'<a href="\2">\1</a>', html)


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Draw formulas; lead links that leave the folder of pages to what the site has.

    Tables that a study wrote get a title, and are left out of the search.

    Returns:
        The text to render.
    """
    if page.file.src_uri.startswith("studies/") and not page.file.src_uri.endswith("README.md"):
        page.meta["search"] = {"exclude": True}
    if page.file.src_uri.startswith("optimizers/"):
        markdown = _CLASS.sub(r"Class: [`\1`][\1]", markdown)
    if not markdown.lstrip().startswith("# "):
        markdown = f"# {_words(page.file.src_uri)}\n\n{markdown}"
    up = "../" * page.file.src_uri.count("/")

    def of_root(found: re.Match[str]) -> str:
        name = "README" if found[1] == "README" else found[1].lower()
        return f"({up}{name}.md{found[2] or ''})"

    return render(_OUTSIDE.sub(r"\1", _ROOT_PAGE.sub(of_root, markdown)))


def _api_page(module: str) -> str:
    return f"reference/api/{module}.md"


def _title(path: Path) -> str:
    first = path.read_text("utf-8").lstrip().splitlines()[0]
    return first.removeprefix("# ").strip() if first.startswith("# ") else _words(str(path))


def _words(path: str) -> str:
    return Path(path).stem.replace("_", " ").capitalize()
