"""Every probe, every agent, every kind of episode: a row, or a reason in one line."""

import math
from functools import cache

import numpy as np
import pytest

from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.bounds_probe import BoundsProbe
from mbrl_flat.diagnostics.inspection import training_batch
from mbrl_flat.diagnostics.landscape import loss_slice
from mbrl_flat.diagnostics.open_loop_probe import OpenLoopProbe
from mbrl_flat.diagnostics.probe import NothingToMeasure, ReplayProbe
from mbrl_flat.diagnostics.rollout_probe import RolloutProbe
from mbrl_flat.diagnostics.sharpness_probe import SharpnessProbe
from mbrl_flat.interfaces import Decodes


@pytest.fixture(scope="session")
def agent_of(debug_agent):
    return cache(debug_agent)


def filled(agent, spec, kind):
    """Episodes that are long, shorter than what the agent learns from, or none at all."""
    length = {
        "long": agent.sequence_length + 8,
        "short": min(3, agent.sequence_length - 1),
        "none": 0,
    }
    length = length[kind]
    replay = Replay(
        spec, 2000, heldout_fraction=0.3, seed=1, complete_only=not agent.across_episodes
    )
    rng = np.random.default_rng(0)

    def obs():
        return {
            name: rng.integers(256, size=shape).astype(np.uint8)
            if name in spec.images
            else rng.normal(size=shape).astype(np.float32)
            for name, shape in spec.obs.items()
        }

    for episode in range(12 if length else 0):
        replay.begin(0, obs())
        for t in range(length):
            action = spec.action.random(1, rng)[0].numpy()
            done = t == length - 1
            terminated = done and episode % 2 == 0
            replay.add(0, action, float(rng.normal()), obs(), terminated=terminated, done=done)
    return replay


class Landscape:
    def __call__(self, agent, replay):
        batch = training_batch(agent, replay, 2, rng=np.random.default_rng(0))
        found = loss_slice(agent.probe_loss(batch), dimensions=1, points=3)
        return {"centre": float(found.losses[1])}


PROBES = {
    "sharpness": lambda folder: SharpnessProbe(batch_size=2, iterations=1, per_module=False),
    "rollout": lambda folder: RolloutProbe(batch_size=8, horizon=4),
    "bounds": lambda folder: BoundsProbe(batch_size=4, horizon=4),
    "open_loop": lambda folder: OpenLoopProbe(
        batch_size=2, horizon=2, context=2, videos=0, folder=folder
    ),
    "landscape": lambda folder: Landscape(),
}
ON_TRAINING_DATA = ("sharpness", "landscape")


@pytest.mark.parametrize("kind", ["long", "short", "none"])
@pytest.mark.parametrize("probe", PROBES)
def test_each_measures_or_says_why_not(every_agent, probe, kind, agent_of, tmp_path):
    agent, spec = agent_of(every_agent)
    replay, measure = filled(agent, spec, kind), PROBES[probe](tmp_path)
    decodes = probe != "open_loop" or isinstance(agent, Decodes)
    trained_on = probe in ON_TRAINING_DATA and agent.across_episodes
    expected = decodes and (kind == "long" or (kind == "short" and trained_on))

    if not expected:
        with pytest.raises(NothingToMeasure, match=r"no decoder|no \d+ transitions in a row"):
            measure(agent, replay)
        return
    row = measure(agent, replay)

    assert row
    assert all(math.isfinite(value) for value in row.values())


def test_a_run_prints_the_reason_once(agent_of, capsys, tmp_path):
    agent, spec = agent_of("tdmpc2")
    scheduled = ReplayProbe(PROBES["sharpness"](tmp_path), agent, filled(agent, spec, "none"))

    assert [scheduled(step) for step in (10, 20)] == [{}, {}]

    error = capsys.readouterr().err
    assert error.startswith("SharpnessProbe measured nothing at step 10: the replay has no ")
    assert error.count("\n") == 1
