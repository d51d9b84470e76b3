"""No function is longer than sixty lines, its docstring included."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 60


def test_no_function_is_longer_than_sixty_lines_with_its_docstring():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    longer = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for folder in ("mbrl_flat", "agents", "envs")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, functions) and (node.end_lineno or 0) - node.lineno >= LIMIT
    }

    assert longer == set()
