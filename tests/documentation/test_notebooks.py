"""Every notebook runs from top to bottom in a kernel of its own, shortened by its parameters."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mbrl_flat.cli import main as cli

ROOT = Path(cli.__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHORT = {"STEPS": 120, "EVALUATE_EVERY": 60}


def shortened(source):
    for name, value in SHORT.items():
        source = re.sub(rf"^{name} = [\d_]+$", f"{name} = {value}", source, flags=re.MULTILINE)
    return source.replace('preset="cpu"', 'preset="debug"').replace(
        '"seed_steps": 250', '"seed_steps": 40'
    )


@pytest.mark.filterwarnings("ignore")  # those of the kernel's packages are not ours
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] for cell in cells), "outputs are not committed"
    for cell in cells:
        cell.source = shortened(cell.source)
    assert "STEPS = 120" in cells[0].source

    NotebookClient(
        notebook,
        timeout=280,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()

    figures = sum("image/png" in getattr(o, "data", {}) for cell in cells for o in cell.outputs)
    assert figures >= 2
    assert next((tmp_path / "runs").iterdir(), None) is not None


def test_there_is_a_notebook():
    assert NOTEBOOKS
