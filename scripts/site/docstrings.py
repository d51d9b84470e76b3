"""Docstrings for the site: their formulas and literals as the pages have them."""

import ast
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))

from formulas import render
from optimizers import markdown


class Formulas(griffe.Extension):
    """Turn the reStructuredText of our docstrings into Markdown before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object, if it has a formula."""
        if obj.docstring is not None and (
            "math::" in obj.docstring.value or ":math:" in obj.docstring.value
        ):
            obj.docstring.value = render(markdown(obj.docstring.value))

    def on_module_members(self, *, node: ast.AST | Any, mod: griffe.Module, **_: Any) -> None:
        """Show what a module exports by ``from a import x as x``."""
        for line in getattr(node, "body", ()):
            if isinstance(line, ast.ImportFrom):
                for name in line.names:
                    if name.name == name.asname and name.name in mod.members:
                        mod.members[name.name].public = True
