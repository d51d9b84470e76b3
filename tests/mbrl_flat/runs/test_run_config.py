"""Values of a run's configuration are checked where its nested parts are built."""

import pytest

from mbrl_flat.errors import UserError
from mbrl_flat.runs.config import RunConfig


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0."),
        ({"log_every": -1}, "log_every must be at least 0, got -1."),
        ({"seed_steps": -1}, "seed_steps must be at least 0, got -1."),
        ({"updates_per_step": float("inf")}, "updates_per_step must be at least 0, got inf."),
        ({"eval_episodes": 0}, "eval_episodes must be at least 1, got 0."),
        ({"replay_capacity": 0}, "replay_capacity must be at least 1, got 0."),
        ({"heldout_fraction": 1.0}, "heldout_fraction must lie in [0, 1), got 1.0."),
        ({"replay_storage": "disc"}, "Unknown replay_storage 'disc'; did you mean 'disk'?"),
        ({"replay_mirror": "nevr"}, "Unknown replay_mirror 'nevr'; did you mean 'never'?"),
        ({"sync": "globl"}, "Unknown sync 'globl'; did you mean 'global' or 'local'?"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0."),
        (
            {"num_envs": 12, "steps": 11},
            "num_envs=12 environments make 12 steps at once, more than steps=11; give more steps "
            "or fewer environments.",
        ),
        ({"seed": -1}, "seed must be at least 0, got -1."),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_is_built(settings, said):
    with pytest.raises(UserError) as caught:
        RunConfig(**settings)

    assert str(caught.value) == said


def test_flat_keys_are_the_values_of_the_nested_configurations(tmp_path):
    config = RunConfig(
        seed=3, replay_capacity=7, replay_storage="disk", eval_episodes=2, video=True, log_every=5
    )

    assert (config.replay_config.capacity, config.replay_config.selection) == (7, config.replay)
    assert config.replay_config.folder(tmp_path) == tmp_path / "replay"
    assert RunConfig().replay_config.folder(tmp_path) is None
    evaluation = config.evaluation
    assert (evaluation.episodes, evaluation.seed, evaluation.env_seed) == (2, 3, 4)
    assert evaluation.video
    assert config.schedule(50).log_every == 5
    assert config.logging.wandb is config.wandb


@pytest.mark.parametrize(("length", "steps"), [(50, 1000), (400, 2000), (10**6, 5000)])
def test_random_steps_are_five_episodes_within_bounds(length, steps):
    assert RunConfig().schedule(length).seed_steps == steps
    assert RunConfig(seed_steps=7).schedule(length).seed_steps == 7
    assert RunConfig(offline_data=["a"]).schedule(length).seed_steps == 0
