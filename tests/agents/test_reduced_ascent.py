"""SAM's first gradient in lower precision, or of a part of the batch, in every agent."""

import pytest
import torch

from mbrl_flat.data.batch import Batch, first_part
from mbrl_flat.specs import Continuous, EnvSpec


def batch_of(spec, rows, length):
    torch.manual_seed(1)
    shape = (rows, length + 1)
    obs = {
        name: torch.randint(256, (*shape, *size), dtype=torch.uint8)
        if name in spec.images
        else torch.randn(*shape, *size)
        for name, size in spec.obs.items()
    }
    return Batch(
        obs=obs,
        action=spec.action.project(torch.rand(rows, length, spec.action.size)),
        reward=torch.rand(rows, length),
        terminated=torch.zeros(rows, length),
        is_first=torch.zeros(shape, dtype=torch.bool),
    )


def evaluations(agent, monkeypatch):
    """Rows, and whether under autocast, of every evaluation of the loss."""
    seen, loss = [], agent._loss

    def recorded(batch, targets):
        seen.append((len(batch.reward), torch.is_autocast_enabled("cpu")))
        return loss(batch, targets)

    monkeypatch.setattr(agent, "_loss", recorded)
    return seen


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"ascent_fraction": 0.5}, (2, False)),
        ({"ascent_precision": "bfloat16"}, (4, True)),
        ({"ascent_fraction": 0.25, "ascent_precision": "bfloat16"}, (1, True)),
    ],
    ids=str,
)
def test_only_the_first_evaluation_is_reduced(
    every_agent, options, first, debug_agent, monkeypatch
):
    agent, spec = debug_agent(every_agent, "sam", **options)
    seen = evaluations(agent, monkeypatch)

    metrics = agent.update(batch_of(spec, 4, agent.sequence_length))

    assert seen == [first, (4, False)]
    assert metrics["optim/evaluations"] == 2
    assert all(bool(torch.as_tensor(value).isfinite()) for value in metrics.values())
    assert all(p.dtype == torch.float32 for p in agent.optimizer.param_groups[0]["params"])


def test_a_part_of_a_batch_is_its_first_rows_and_what_belongs_to_them():
    spec = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=50)
    batch = batch_of(spec, 5, 3)
    targets = {"each": torch.arange(5), "steps": torch.arange(15)}

    part, cut = first_part(batch, targets, 0.4)

    assert torch.equal(part.obs["state"], batch.obs["state"][:2])
    assert torch.equal(part.is_first, batch.is_first[:2])
    assert cut["each"].tolist() == [0, 1]
    assert cut["steps"].tolist() == list(range(6))
    assert first_part(batch, targets, 1e-6)[1]["each"].tolist() == [0]
    assert first_part(batch, targets, 1.0) == (batch, targets)
