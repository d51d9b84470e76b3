from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mbrl_flat.runs.heading import describe_run


@pytest.mark.parametrize(
    ("network", "optimizer", "length"),
    [
        (torch.nn.Linear(3, 4), "sam, rho=0.01, on cpu", ", 20 random, then 10 updates"),
        (None, "none, on cpu", "(200 frames)"),
    ],
)
def test_only_an_agent_that_learns_has_an_optimizer_and_updates(network, optimizer, length):
    config = SimpleNamespace(
        names={"agent": "some", "optimizer": "sam"},
        optimizer={"rho": 0.01},
        preset="debug",
        seed=0,
        updates_per_step=0.5,
    )
    trainer = SimpleNamespace(
        agent=SimpleNamespace(network=network),
        collector=SimpleNamespace(action_repeat=2),
        config=SimpleNamespace(steps=100, seed_steps=20),
    )

    lines = describe_run(config, trainer, Path("run"), torch.device("cpu"))

    found = {line.split(maxsplit=1)[0]: line for line in lines}
    assert optimizer in found["optimizer"]
    assert length in found["length"]
    assert ("updates" in found["length"]) == (network is not None)
