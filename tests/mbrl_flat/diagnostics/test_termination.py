"""Scores of predicted terminations: closed forms, and models that know or know nothing."""

import copy
import math

import numpy as np
import pytest
import torch

from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.rollout_probe import RolloutProbe
from mbrl_flat.diagnostics.termination import draw_endings, predicted, termination_scores
from mbrl_flat.interfaces import Prediction
from mbrl_flat.specs import Continuous, EnvSpec

SPEC = EnvSpec(obs={"state": (2,)}, action=Continuous(dim=1), episode_length=30)
LENGTHS = (9, 14, 6, 11, 8, 20, 7, 13)


def countdown(*, lengths=LENGTHS, ends=lambda episode: episode % 2 == 0, heldout_fraction=0.0):
    """Episodes whose observations count the steps left, and say whether the task will end."""
    replay = Replay(SPEC, 1000, heldout_fraction=heldout_fraction, seed=0)
    for episode, length in enumerate(lengths):
        will_end = ends(episode)
        for t in range(length + 1):
            obs = {"state": np.array([length - t, will_end], np.float32)}
            if t == 0:
                replay.begin(0, obs)
                continue
            done = t == length
            action = np.full(1, 0.1, np.float32)
            replay.add(0, action, float(episode), obs, terminated=done and will_end, done=done)
    return replay


class Counting:
    """Counts down as the episodes do and says with ``confidence`` what follows from it."""

    discount, sequence_length, predicts_termination = 0.9, 3, True

    def __init__(self, confidence=1.0):
        self.confidence = confidence

    def posterior(self, batch):
        return batch.obs["state"]

    def predict(self, latent, action):
        after = latent - torch.tensor([1.0, 0.0])
        ended = (after[:, 0] == 0.0) & (after[:, 1] > 0.5)
        sure = torch.full_like(after[:, 0], self.confidence)
        return Prediction(after, after[:, 0], torch.where(ended, 1.0 - sure, sure))

    def value(self, latent):
        return latent.sum(-1)

    def probe_loss(self, batch):
        raise NotImplementedError


class Restarting(Counting):
    """Counts down from four again and again; every arrival at zero is an end."""

    def predict(self, latent, action):
        ended = latent[:, 0] == 1.0
        after = torch.where(ended[:, None], torch.tensor([4.0, 0.0]), latent - torch.eye(2)[0])
        return Prediction(after, after[:, 0], (~ended).float())


def rng():
    return np.random.default_rng(0)


def test_the_scores_are_their_definitions():
    probability = torch.tensor([[0.9, 0.3, 0.4, 0.1], [0.5, 0.5, 0.5, 0.5]])
    ended = torch.tensor([1.0, 1.0, 0.0, 0.0])

    row = termination_scores(probability, ended, rate=0.2)

    first = 0.2 * (0.1**2 + 0.7**2) / 2.0 + 0.8 * (0.4**2 + 0.1**2) / 2.0
    assert row["termination_brier_1"] == pytest.approx(first, rel=1e-6)
    assert row["termination_auc_1"] == 3.0 / 4.0
    assert row["termination_brier_2"] == pytest.approx(0.25, rel=1e-12)
    assert row["termination_auc_2"] == 0.5
    assert row["termination_rate"] == 0.2
    assert row["termination_count"] == 2.0


def test_saying_the_base_rate_scores_as_the_base_rate():
    """p (1 - p)^2 + (1 - p) p^2 = p (1 - p)."""
    probability = torch.full((3, 8), 0.125, dtype=torch.float64)
    ended = torch.tensor([1.0] * 4 + [0.0] * 4)

    row = termination_scores(probability, ended, rate=0.125)

    for k in (1, 2, 3):
        assert row[f"termination_brier_{k}"] == pytest.approx(row["termination_brier_base"])
        assert row[f"termination_auc_{k}"] == 0.5


def test_both_kinds_are_drawn_and_the_rate_is_that_of_all_slices():
    replay = countdown()
    # Each episode of L transitions has L - K + 1 subsequences, of which the last may end the task.
    subsequences = sum(length - 5 + 1 for length in LENGTHS)

    batch, rate = draw_endings(replay, 40, 5, rng=rng(), heldout=False)

    assert batch.terminated[:, -1].sum() == 4.0
    assert batch.terminated[:, :-1].sum() == 0.0
    assert len(batch.reward) == 4 + 20
    assert rate == pytest.approx(4.0 / subsequences, rel=1e-12)
    which = torch.cat([batch.reward[:, :1], batch.obs["state"][:, 0]], 1)
    assert len(torch.unique(which, dim=0)) == 24


@pytest.mark.parametrize("ends", [lambda episode: False, lambda episode: True])
def test_of_one_kind_alone_nothing_is_drawn(ends):
    """A replay without an end, and one of which every subsequence of this length is one."""
    replay = countdown(lengths=(5, 5, 5), ends=ends)

    assert draw_endings(replay, 8, 5, rng=rng(), heldout=False) is None


def test_ends_within_a_slice_leave_its_last_transition_in_question():
    """So it is where lost lives are recorded as terminations."""
    replay = Replay(SPEC, 1000, seed=0)
    for t in range(26):
        obs = {"state": np.array([4 - t % 4, 0.0], np.float32)}
        if t == 0:
            replay.begin(0, obs)
            continue
        lost = t % 4 == 0
        replay.add(0, np.zeros(1, np.float32), 0.0, obs, terminated=lost, done=t == 25)

    drawn = draw_endings(replay, 12, 6, rng=rng(), heldout=False)

    assert drawn.rate == pytest.approx(5 / 20)
    assert drawn.batch.terminated[:, :-1].any()
    assert torch.equal(
        predicted(Restarting(), drawn.batch), drawn.batch.terminated[:, -1].expand(6, -1)
    )


def test_the_same_transition_is_predicted_from_every_distance():
    """A model that counts knows the end from any distance; one step is enough to see it."""
    drawn = draw_endings(countdown(), 12, 6, rng=rng(), heldout=False)

    found = predicted(Counting(), drawn.batch)

    assert torch.equal(found, drawn.batch.terminated[:, -1].expand(6, -1))


def test_a_model_that_knows_is_told_from_one_that_guesses():
    replay = countdown()
    knowing = RolloutProbe(horizon=4, heldout=False)(Counting(0.9), replay)
    guessing = RolloutProbe(horizon=4, heldout=False)(Counting(0.5), replay)

    for k in range(1, 5):
        assert knowing[f"probe/rollout/termination_brier_{k}"] == pytest.approx(0.01, rel=1e-5)
        assert knowing[f"probe/rollout/termination_auc_{k}"] == 1.0
        assert guessing[f"probe/rollout/termination_brier_{k}"] == pytest.approx(0.25, rel=1e-12)
        assert guessing[f"probe/rollout/termination_auc_{k}"] == 0.5
    base = knowing["probe/rollout/termination_brier_base"]
    assert 0.01 < base < 0.25


def test_heldout_episodes_are_the_ones_that_are_predicted():
    replay = countdown(lengths=LENGTHS * 4, heldout_fraction=0.4)
    heldout = draw_endings(replay, 64, 5, rng=rng(), heldout=True)
    training = draw_endings(replay, 64, 5, rng=rng(), heldout=False)

    ended = [int(kind.batch.terminated.sum()) for kind in (heldout, training)]

    assert min(ended) > 0
    assert sum(ended) == 16


def scores(row):
    return {name for name in row if "brier" in name or "auc" in name or "rate" in name}


def test_nothing_is_said_where_nothing_ends_or_nothing_was_learned(filled_replay, linear_agent):
    class Headless(Counting):
        predicts_termination = False

    probe = RolloutProbe(horizon=4, heldout=False)

    assert len(scores(probe(Counting(), countdown()))) == 10
    assert not scores(probe(Counting(), countdown(ends=lambda episode: False)))
    assert not scores(probe(Headless(), countdown()))
    assert not scores(probe(linear_agent, filled_replay))


def test_a_resumed_probe_predicts_the_same_subsequences():
    replay, agent = countdown(), Counting(0.7)
    probe = RolloutProbe(horizon=4, batch_size=4, heldout=False)
    probe(agent, replay)
    resumed = RolloutProbe(horizon=4, batch_size=4, heldout=False, seed=9)
    resumed.load_state_dict(copy.deepcopy(probe.state_dict()))

    row = probe(agent, replay)

    assert resumed(agent, replay) == row
    assert all(math.isfinite(value) for value in row.values())
