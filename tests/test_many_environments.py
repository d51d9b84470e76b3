"""One, two or eight environments: one code path, one update-to-data ratio, one evaluation."""

import pytest

from tests.test_training import run


@pytest.mark.parametrize("num_envs", [1, 2, 8])
@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_the_update_to_data_ratio_does_not_depend_on_the_number(tmp_path, num_envs, ratio):
    """Episodes have 50 steps; with eight environments the first ends at step 400."""
    rows = run(
        tmp_path / "run", "agent=random", "steps=480", "seed_steps=400", "log_every=480",
        "eval_every=0", "probe_every=0", f"num_envs={num_envs}", f"updates_per_step={ratio}",
    )  # fmt: skip

    assert rows[-1]["step"] == 480
    assert rows[-1]["train/updates"] == 480 * ratio


def test_an_evaluation_of_one_agent_does_not_depend_on_the_number(tmp_path):
    """The rows of step 0: the same weights, whatever trains them later."""
    few, many = (
        run(
            tmp_path / str(num), "steps=8", "updates_per_step=0", "probe_every=0",
            f"num_envs={num}", "eval_every=200",
        )[0]
        for num in (1, 8)
    )  # fmt: skip

    assert few["step"] == 0
    assert "eval/return_mean" in few
    assert few == many


@pytest.mark.slow
def test_processes_train_as_one_process_does(tmp_path):
    settings = ("steps=160", "seed_steps=104", "num_envs=2", "eval_every=0", "probe_every=0")
    together = run(tmp_path / "one", *settings)

    assert run(tmp_path / "many", *settings, "parallel_envs=true") == together
