"""Every best radius of a supervised study lies inside the grid that was tried."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from mbrl_flat.cli import main as cli

ROOT = Path(cli.__file__).parents[2]
script = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "study_report.py")))


def best_radius(rows, settings, tries):
    """Validation accuracy decides, by its mean over the first seeds; the smaller of equal radii."""
    scores = {}
    for row in rows.where(**settings):
        if row["seed"] < tries:
            scores.setdefault(row["rho"], []).append(row["validation_accuracy"])
    return max(scores, key=lambda rho: (sum(scores[rho]) / len(scores[rho]), -rho))


def sweeps(name):
    """The settings, radii and tries of every sweep of a study."""
    study = script.load_study(name)
    if name == "label_noise":
        return [({"method": m}, radii, study.tries) for m, radii in study.radii.items()]
    return [
        ({"network": network, "method": method}, radii, study.runs.sweep(network).tries)
        for network in study.runs.networks
        for method, radii in study.runs.sweep(network).radii.items()
    ]


@pytest.mark.parametrize("name", ["label_noise", "sam_on", "momentum_sam", "vasso"])
def test_no_best_radius_is_an_end_of_its_grid(name):
    rows = script.load_rows(script.load_study(name), name)
    best = [
        (settings, radii, best_radius(rows, settings, tries))
        for settings, radii, tries in sweeps(name)
        if len(radii) > 1
    ]

    assert best
    assert [found for found in best if found[2] in (min(found[1]), max(found[1]))] == []
