"""SAM's first gradient in lower precision, or of a part of the batch, in every agent."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

import mbrl_flat.cli.commands  # noqa: F401 - registers the schemas
from mbrl_flat.cli import main as cli
from mbrl_flat.data.batch import Batch, first_part
from mbrl_flat.optim import make_optimizer
from mbrl_flat.specs import Continuous, Discrete, EnvSpec

CATALOGUE = Path(cli.__file__).resolve().parents[2] / "configs" / "agent"
AGENTS = sorted(path.stem for path in CATALOGUE.glob("*.yaml") if path.stem != "random")

IMAGES = EnvSpec(
    obs={"image": (3, 16, 16)},
    action=Discrete(num=4),
    episode_length=50,
    images=frozenset({"image"}),
)
VECTORS = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=50)


def make_agent(name, **options):
    GlobalHydra.instance().clear()
    with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        cfg = compose("train", overrides=[f"agent={name}", "preset=debug"])
    GlobalHydra.instance().clear()

    def factory(groups, *, max_grad_norm=None):
        return make_optimizer("sam", groups, max_grad_norm=max_grad_norm, lr=1e-3, **options)

    torch.manual_seed(0)
    spec = VECTORS if name == "tdmpc2" else IMAGES
    return instantiate(cfg.agent)(spec, optimizer=factory, device=torch.device("cpu")), spec


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


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"ascent_fraction": 0.5}, (2, False)),
        ({"ascent_precision": "bfloat16"}, (4, True)),
        ({"ascent_fraction": 0.25, "ascent_precision": "bfloat16"}, (1, True)),
    ],
    ids=str,
)
def test_only_the_first_evaluation_is_reduced(name, options, first, monkeypatch):
    agent, spec = make_agent(name, **options)
    seen = evaluations(agent, monkeypatch)

    metrics = agent.update(batch_of(spec, 4, agent.sequence_length))

    assert seen == [first, (4, False)]
    assert metrics["optim/evaluations"] == 2
    assert all(bool(torch.as_tensor(value).isfinite()) for value in metrics.values())
    assert all(p.dtype == torch.float32 for p in agent.optimizer.param_groups[0]["params"])


def test_a_part_of_a_batch_is_its_first_rows_and_what_belongs_to_them():
    batch = batch_of(VECTORS, 5, 3)
    targets = {"each": torch.arange(5), "steps": torch.arange(15)}

    part, cut = first_part(batch, targets, 0.4)

    assert torch.equal(part.obs["state"], batch.obs["state"][:2])
    assert torch.equal(part.is_first, batch.is_first[:2])
    assert cut["each"].tolist() == [0, 1]
    assert cut["steps"].tolist() == list(range(6))
    assert first_part(batch, targets, 1e-6)[1]["each"].tolist() == [0]
    assert first_part(batch, targets, 1.0) == (batch, targets)
