"""The Hopfield study in small: what it says on sixty rotations."""

import pytest

from mbrl_flat.studies.experiments.hopfield import GAINS, Hopfield
from mbrl_flat.studies.framework import run_study


@pytest.fixture(scope="module")
def study():
    return Hopfield(strengths=(0.05,), rotations=60)


@pytest.fixture(scope="module")
def rows(study, tmp_path_factory):
    return run_study(study, tmp_path_factory.mktemp("hopfield"), command="test").rows


def test_the_outlier_is_forgotten_more_and_the_identity_holds(study, rows):
    verdicts = {claim.name: claim.verdict for claim in study.claims(rows)}

    assert verdicts["H1a"] == "supported"
    assert verdicts["H3"] == "supported"
    assert {"H2a1", "H2a2", "H2a3", "H2a4"} <= verdicts.keys()


def test_the_mean_gains_come_in_the_predicted_order(rows):
    means = [sum(rows.values(name)) / len(rows) for name in GAINS]

    assert means == sorted(means, reverse=True)


def test_the_outlier_has_the_highest_energy(rows):
    assert all(row["outlier_has_highest_energy"] for row in rows)
