"""Where a study's best radius is an end of its grid, verdict and page say so."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from mbrl_flat.cli import main as cli

ROOT = Path(cli.__file__).parents[2]
STUDIES = ("sam_on", "momentum_sam", "vasso")
script = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "study_report.py")))


def best_radius(rows, network, method, tries):
    """Validation accuracy decides, by its mean over the first seeds; the smaller of equal radii."""
    tried = [row for row in rows if (row.get("network"), row.get("method")) == (network, method)]
    scores = {}
    for row in tried:
        if row["seed"] < tries:
            scores.setdefault(row["rho"], []).append(row["validation_accuracy"])
    return max(scores, key=lambda rho: (sum(scores[rho]) / len(scores[rho]), -rho))


@pytest.mark.parametrize("name", STUDIES)
def test_every_verdict_on_a_radius_at_the_end_of_its_grid_says_so(name):
    study = script.load_study(name)
    rows = script.load_rows(study, name)
    at_edge = {
        (network, method)
        for network in study.runs.networks
        for method, radii in study.runs.sweep(network).radii.items()
        if len(radii) > 1
        and best_radius(rows, network, method, study.runs.sweep(network).tries)
        in (min(radii), max(radii))
    }
    assert at_edge

    text = (ROOT / "docs" / "studies" / name / "README.md").read_text(encoding="utf-8")
    said = set()
    for line in text.splitlines():
        found = re.match(r"\| [\w ]+ \| (\w+): .*? \| .*? of ([\w.]+) minus ([\w.]+) \(rho", line)
        if found is None:
            continue
        network, *methods = found.groups()
        named = set(re.findall(r"best rho of ([\w.]+) at the edge of its grid", line))
        sources = {study.runs.controls.get(method, method) for method in methods}
        expected = {method for method in sources if (network, method) in at_edge}
        assert named == expected, line
        said |= {(network, method) for method in named}
    assert said
    assert said <= at_edge
    prose = text.partition("\n- ")[2]
    assert "edge of the grid" in prose
