"""Each replay policy on a set where the right choice is known."""

import numpy as np
import pytest

from mbrl_flat.data.selection_policies import POLICIES, choose_replay
from mbrl_flat.errors import UserError

ENERGY = np.linspace(0.0, 1.0, 200)
LABELS = np.repeat([0, 1, 2, 3], 50)
X = np.random.default_rng(0).normal(size=(200, 3))


def choose(policy, num=20, **changes):
    settings = {"energy": ENERGY, "labels": LABELS, "x": X, "num": num, "seed": 0}
    return choose_replay(policy, **{**settings, **changes})


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "none"])
def test_every_policy_keeps_as_many_distinct_samples_as_asked_for(policy):
    kept = choose(policy)

    assert len(set(kept.tolist())) == 20
    assert set(kept.tolist()) <= set(range(200))


def test_energy_decides_where_it_should():
    np.testing.assert_array_equal(choose("top_energy", 3), [199, 198, 197])
    np.testing.assert_array_equal(choose("bottom_energy", 3), [0, 1, 2])
    np.testing.assert_array_equal(choose("guarded_top_energy", 3), [197, 196, 195])
    assert len(choose("none")) == 0


def test_classes_are_balanced():
    np.testing.assert_array_equal(np.bincount(LABELS[choose("class_balanced")]), [5, 5, 5, 5])


def test_a_cover_reaches_every_cluster_first():
    centres = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
    x = centres[LABELS] + np.random.default_rng(1).normal(size=(200, 2))

    assert set(LABELS[choose("cover", 4, x=x)]) == {0, 1, 2, 3}


def test_the_same_seed_keeps_the_same_samples():
    np.testing.assert_array_equal(choose("random", seed=3), choose("random", seed=3))
    assert not np.array_equal(choose("random", seed=3), choose("random", seed=4))


def test_what_cannot_be_chosen_is_refused():
    with pytest.raises(UserError, match="did you mean 'top_energy'"):
        choose("top_enrgy")
    with pytest.raises(UserError, match="Cannot keep 201 of 200"):
        choose("random", 201)
