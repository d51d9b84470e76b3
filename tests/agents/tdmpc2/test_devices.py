"""Everything lives on the agent's device, whichever it is; transfers to CUDA are pinned.

Without a GPU the same code runs on the meta device: its tensors have no values, and mixing them
with the CPU's is an error.
"""

from contextlib import nullcontext

import pytest
import torch

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.tdmpc2.planner import PlanNoise
from mbrl_flat.agents.tdmpc2.policy import policy_loss
from mbrl_flat.data.batch import Batch
from mbrl_flat.optim import make_optimizer
from mbrl_flat.planning.mppi import MPPIConfig, Noise
from mbrl_flat.runtime.device import transfer

PLANNER = MPPIConfig(num_samples=16, num_prior=4, num_elites=4, iterations=2)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
        ],
    ),
    pytest.param(
        "mps",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(
                not torch.backends.mps.is_available(), reason="there is no MPS device"
            ),
        ],
    ),
]


def make_agent(spec, device, method="adam", planner_dtype="float32", **settings):
    config = TDMPC2Config(
        size="debug", batch_size=4, planner=PLANNER, episodic=True, planner_dtype=planner_dtype
    )

    def optimizer(groups, *, max_grad_norm=None):
        return make_optimizer(method, groups, max_grad_norm=max_grad_norm, lr=1e-3, **settings)

    return TDMPC2(spec, config=config, optimizer=optimizer, device=torch.device(device))


def make_batch(device="cpu"):
    return Batch(
        obs={"state": torch.randn(4, 4, 3, device=device)},
        action=2.0 * torch.rand(4, 3, 2, device=device) - 1.0,
        reward=torch.randn(4, 3, device=device),
        terminated=torch.zeros(4, 3, device=device),
    )


def make_noise(device):
    """Noise of two states, as ``LatentPlanner.draw`` gives it."""
    search = Noise(
        samples=torch.randn(2, 2, 12, 3, 2, device=device),
        choice=torch.randn(2, 4, device=device),
        exploration=torch.randn(2, 2, device=device),
    )
    prior = torch.randn(2, 4, 3, 2, device=device)
    last = torch.randn(2, 2, 16, 2, device=device)
    return PlanNoise(search, prior, last, torch.zeros(2, 2, dtype=torch.long, device=device))


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for part in parts for tensor in tensors(part)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("planner_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["adam", "sam"])
def test_an_agent_learns_and_acts_on_its_device(spec, device, method, planner_dtype):
    agent = make_agent(spec, device, method, planner_dtype)
    generator = torch.Generator(device).manual_seed(0)
    state, obs = agent.initial_state(2), {"state": torch.randn(2, 3)}

    for _ in range(2):
        metrics = agent.update(make_batch())
        for mode in ("explore", "eval", "policy"):
            action, state = agent.act(obs, state, mode=mode, generator=generator)

    kept = [action, *tensors(state), *tensors(agent.state_dict()["model"])]
    assert {tensor.device.type for tensor in kept} == {device}
    assert all(bool(torch.as_tensor(value).isfinite()) for value in metrics.values())


@pytest.fixture
def elsewhere(spec, monkeypatch):
    """An agent whose every weight is on another device than the CPU."""
    # Mixed precision does not know the meta device, not even to be switched off.
    monkeypatch.setattr(torch, "autocast", lambda *args, **settings: nullcontext())

    def make(**settings):
        agent = make_agent(spec, "cpu", **settings)
        agent.device = torch.device("meta")
        for module in (agent.model, agent.policy, agent.planner.networks):
            module.to(agent.device)
        agent.scale.value = agent.scale.value.to(agent.device)
        return agent

    return make


@pytest.mark.parametrize("planner_dtype", ["float32", "bfloat16"])
def test_no_tensor_of_a_loss_or_a_plan_is_left_on_the_cpu(elsewhere, planner_dtype):
    agent = elsewhere(planner_dtype=planner_dtype)
    batch = make_batch().to(agent.device)
    agent.model.train()

    targets = agent.model.targets(batch, agent.policy)
    output = agent.model.loss(batch, targets)
    output.loss.backward()
    sample = agent.policy(output.latents)
    heads = agent.model.draw_heads(agent.device)
    q = agent.model.q_values(output.latents, sample.action, heads).mean(0)
    policy_loss(sample, q, agent.scale.value, agent.config).backward()
    agent.scale.update(q[:, 0])
    agent.model.update_target()
    latent = agent.model.encode({"state": torch.randn(2, 3, device="meta")})
    mean = agent.initial_state(2)["mean"]
    with torch.no_grad():
        plan = agent.planner.plan(latent, mean, make_noise("meta"), explore=True)

    made = [output.loss, output.latents, *targets.values(), *plan, agent.scale.value]
    made += [p.grad for p in agent.model.parameters() if p.requires_grad]
    assert {tensor.device.type for tensor in made} == {"meta"}


def test_a_tensor_that_was_left_behind_would_be_noticed(elsewhere):
    agent = elsewhere()
    agent.scale.value = torch.ones(4)
    batch = make_batch().to(agent.device)
    latents = agent.model.loss(batch, agent.model.targets(batch, agent.policy)).latents
    sample = agent.policy(latents)

    with pytest.raises(RuntimeError, match="device"):
        policy_loss(sample, sample.entropy, agent.scale.value, agent.config)


def test_what_goes_to_cuda_is_pinned_and_does_not_block(monkeypatch):
    calls = []

    class Recorded:
        device = torch.device("cpu")

        def pin_memory(self):
            calls.append("pinned")
            return self

        def to(self, device, non_blocking=False):
            calls.append((device.type, non_blocking))
            return self

    transfer(Recorded(), torch.device("cuda"))
    transfer(Recorded(), torch.device("mps"))
    transfer(Recorded(), torch.device("cpu"))

    assert calls == ["pinned", ("cuda", True), ("mps", False), ("cpu", False)]
