"""A replay that cannot hold what it is for is refused before the first step."""

import numpy as np
import pytest

from mbrl_flat.data.capacity import check_capacity, check_memory
from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from mbrl_flat.specs import Continuous, EnvSpec

SPEC = EnvSpec(obs={"state": (1,)}, action=Continuous(dim=1), episode_length=50)
LENGTH = 3


def replay_of(capacity, **settings):
    return Replay(SPEC, capacity, num_envs=1, heldout_fraction=0.0, seed=0, **settings)


def play(replay, steps):
    """Whether a subsequence can be drawn after each step from the end of the first episode."""
    obs = {"state": np.zeros(1, np.float32)}
    found = []
    replay.begin(0, obs)
    for step in range(1, steps + 1):
        done = step % SPEC.episode_length == 0
        replay.add(0, np.zeros(1, np.float32), 0.0, obs, terminated=False, done=done)
        if step >= SPEC.episode_length:
            found.append(replay.can_sample(LENGTH))
        if done:
            replay.begin(0, obs)
    return found


@pytest.mark.parametrize("capacity", range(45, 65))
def test_what_is_accepted_always_has_a_slice_and_what_is_refused_does_not(capacity):
    replay = replay_of(capacity)
    always = all(play(replay, 400))

    if always:
        check_capacity(replay_of(capacity), SPEC, length=LENGTH, steps=400)
    else:
        with pytest.raises(UserError, match="set replay_capacity to at least"):
            check_capacity(replay_of(capacity), SPEC, length=LENGTH, steps=400)


def test_the_capacity_that_the_message_names_is_accepted():
    with pytest.raises(UserError) as error:
        check_capacity(replay_of(20), SPEC, length=LENGTH, steps=400)
    named = int(str(error.value).rstrip(".").split()[-1])

    check_capacity(replay_of(named), SPEC, length=LENGTH, steps=400)


def test_a_run_that_fits_as_a_whole_and_one_of_open_episodes_need_no_room():
    check_capacity(replay_of(20), SPEC, length=LENGTH, steps=20)
    check_capacity(replay_of(20, complete_only=False), SPEC, length=LENGTH, steps=400)


def test_sequences_longer_than_any_episode_are_refused():
    check_capacity(replay_of(1000), SPEC, length=SPEC.episode_length, steps=1000)
    with pytest.raises(UserError, match="takes 51 transitions in a row, and no episode has more"):
        check_capacity(replay_of(1000), SPEC, length=SPEC.episode_length + 1, steps=1000)
    check_capacity(replay_of(1000, complete_only=False), SPEC, length=5000, steps=1000)


def test_a_replay_and_a_batch_fit_if_and_only_if_the_machine_holds_what_is_written():
    replay = replay_of(1000)
    row = replay.nbytes // replay.slots_per_env
    fits = {"rows": 10, "steps": 100, "memory": 100 * row, "on_disk": False}

    check_memory(replay, **fits)
    check_memory(replay, **fits | {"steps": 10**9, "on_disk": True})
    check_memory(replay, **fits | {"steps": 10**9, "memory": replay.nbytes})
    for change, said in (
        ({"steps": 101}, "The replay would take .*; lower replay_capacity or steps, or set"),
        ({"rows": 101}, "The batch would take .*; lower the agent's batch_size"),
        ({"rows": 101, "on_disk": True}, "The batch would take"),
    ):
        with pytest.raises(UserError, match=said):
            check_memory(replay, **fits | change)
