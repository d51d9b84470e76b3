"""Films of what the imagination agents expect, made without touching them."""

import copy

import numpy as np
import torch

from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.open_loop_probe import OpenLoopProbe


def filled(spec):
    replay, rng = Replay(spec, 100), np.random.default_rng(0)
    frames = rng.integers(256, size=(13, *spec.obs["image"])).astype(np.uint8)
    replay.begin(0, {"image": frames[0]})
    for t, frame in enumerate(frames[1:]):
        action = np.eye(spec.action.size, dtype=np.float32)[t % spec.action.size]
        replay.add(0, action, 0.0, {"image": frame}, terminated=False, done=t == 11)
    return replay


def test_a_film_is_made_of_every_model_with_a_decoder(name, build, tmp_path):
    agent = build(name)
    before = copy.deepcopy(agent.model.state_dict())
    probe = OpenLoopProbe(
        horizon=3, context=2, batch_size=2, videos=1, heldout=False, folder=tmp_path
    )

    row = probe(agent, filled(agent.spec))

    assert set(row) == {f"probe/rollout/observation_error_{k}" for k in range(4)}
    assert all(0.0 < value < np.inf for value in row.values())
    assert all(torch.equal(before[k], v) for k, v in agent.model.state_dict().items())
    assert [film.name for film in tmp_path.iterdir()] == ["open_loop_0001.mp4"]
