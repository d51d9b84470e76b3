"""A run whose environment fails names the last checkpoint."""

from types import SimpleNamespace

import pytest

from mbrl_flat.errors import EnvironmentFailure
from mbrl_flat.training.trainer import Trainer


def test_a_failing_environment_ends_the_run_with_step_and_last_checkpoint():
    def fail(stop):
        raise EnvironmentFailure("Environment 'X-v0' failed in step(): OSError: gone.")

    trainer = SimpleNamespace(
        _run=fail,
        step=120,
        _last_good=lambda: "the last good checkpoint is R/latest.pt (step 100)",
    )

    with pytest.raises(
        EnvironmentFailure, match=r"step 120: Environment 'X-v0' failed.*R/latest.pt \(step 100\)"
    ):
        Trainer.run(trainer)
