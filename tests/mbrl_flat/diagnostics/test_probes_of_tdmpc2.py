"""The probes on the agent that they were made for."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.bounds_probe import BoundsProbe
from mbrl_flat.diagnostics.hvp import Hessian
from mbrl_flat.diagnostics.rollout_probe import RolloutProbe
from mbrl_flat.diagnostics.sharpness_measures import (
    AdaptiveSharpness,
    CategoricalGaussNewton,
    Preconditioned,
    Trace,
)
from mbrl_flat.diagnostics.sharpness_probe import SharpnessProbe
from mbrl_flat.diagnostics.vectors import flatten
from mbrl_flat.optim import Adam
from mbrl_flat.optim.methods.ema import ema
from mbrl_flat.specs import Continuous, EnvSpec

SPEC = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=12)


@pytest.fixture
def agent():
    torch.manual_seed(0)
    config = TDMPC2Config(size="debug", simnorm_size=4)
    return TDMPC2(SPEC, config=config, optimizer=partial(Adam, lr=3e-4), device=torch.device("cpu"))


def update(agent, replay: Replay, seed):
    torch.manual_seed(seed)
    return agent.update(replay.sample(8, agent.sequence_length, rng=np.random.default_rng(seed)))


def state_of(agent):
    return copy.deepcopy(agent.state_dict())


def assert_equal(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        for one, other in zip(a, b, strict=True):
            assert_equal(one, other)
    else:
        assert a == b


def test_probing_does_not_change_the_next_update(agent, filled_replay):
    update(agent, filled_replay, 1)
    twin = copy.deepcopy(agent)
    probes = [
        SharpnessProbe(
            batch_size=16,
            iterations=4,
            heldout=True,
            curvature=[
                Trace(samples=2),
                Preconditioned(iterations=3),
                CategoricalGaussNewton(iterations=3),
            ],
            gaps=[AdaptiveSharpness()],
        ),
        RolloutProbe(batch_size=16),
        BoundsProbe(batch_size=16),
    ]

    rows = [probe(agent, filled_replay) for probe in probes]

    assert_equal(state_of(agent), state_of(twin))
    assert_equal(update(agent, filled_replay, 2), update(twin, filled_replay, 2))
    assert_equal(state_of(agent), state_of(twin))
    for module in ("encoder", "dynamics", "reward", "q"):
        assert f"probe/sharpness/{module}/lambda_max" in rows[0]
        assert f"probe/sharpness/{module}/gauss_newton" in rows[0]
        # What reward and values say starts at the encoder, and the dynamics lead there.
        assert rows[0]["probe/sharpness/heldout/gauss_newton"] > 0.0
    assert rows[0]["probe/sharpness/preconditioned"] > 0.0
    assert rows[0]["probe/sharpness/preconditioned_threshold"] == pytest.approx(38.0)
    assert "probe/rollout/value_error_10" in rows[1]
    assert rows[2]["probe/bound/value_total"] > 0.0
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_predicting_terminations_does_not_change_the_next_update(empty_replay):
    """Episodes that end the task beside others that run out of time, of which some are held out."""
    rng = np.random.default_rng(0)
    for episode in range(16):
        empty_replay.begin(0, {"state": rng.normal(size=3).astype(np.float32)})
        for t in range(12):
            action, obs = (rng.uniform(-1.0, 1.0, n).astype(np.float32) for n in (2, 3))
            end = t == 11
            empty_replay.add(
                0, action, 0.5, {"state": obs}, terminated=end and episode % 2 == 0, done=end
            )
    torch.manual_seed(0)
    config = TDMPC2Config(size="debug", simnorm_size=4, episodic=True)
    factory = partial(Adam, lr=3e-4)
    agent = TDMPC2(SPEC, config=config, optimizer=factory, device=torch.device("cpu"))
    update(agent, empty_replay, 1)
    twin, stream = copy.deepcopy(agent), torch.get_rng_state()

    row = RolloutProbe(batch_size=16, horizon=5)(agent, empty_replay)

    assert torch.equal(torch.get_rng_state(), stream)
    assert_equal(state_of(agent), state_of(twin))
    assert_equal(update(agent, empty_replay, 2), update(twin, empty_replay, 2))
    for k in range(1, 6):
        assert 0.0 < row[f"probe/rollout/termination_brier_{k}"] < 1.0
        assert 0.0 <= row[f"probe/rollout/termination_auc_{k}"] <= 1.0
    assert 0.0 < row["probe/rollout/termination_rate"] < 0.5


def test_without_a_termination_head_nothing_is_predicted(agent, filled_replay):
    row = RolloutProbe(batch_size=16)(agent, filled_replay)

    assert "probe/rollout/reference_error_10" in row
    assert not any("brier" in name or "auc" in name for name in row)


@pytest.mark.parametrize("make", [SharpnessProbe, RolloutProbe])
def test_probes_measure_the_weights_that_the_agent_acts_with(filled_replay, make):
    """An average of the weights kept for acting is what counts, not those under training."""
    torch.manual_seed(0)
    config = TDMPC2Config(size="debug", simnorm_size=4)
    averaged = TDMPC2(
        SPEC,
        config=config,
        optimizer=partial(ema, base=partial(torch.optim.Adam, lr=1e-2), decay=0.5),
        device=torch.device("cpu"),
    )
    for seed in range(3):
        update(averaged, filled_replay, seed)
    with averaged.optimizer.evaluation_params():
        held = {name: value.clone() for name, value in averaged.model.state_dict().items()}
    frozen = copy.deepcopy(averaged)
    frozen.optimizer = torch.optim.SGD(frozen.model.parameters(), lr=0.1)
    trained = make(batch_size=16)(frozen, filled_replay)
    frozen.model.load_state_dict(held)

    found = make(batch_size=16)(averaged, filled_replay)

    assert found == make(batch_size=16)(frozen, filled_replay)
    assert found != trained


def test_its_hessian_is_symmetric_and_the_derivative_of_its_gradient(agent, filled_replay):
    update(agent, filled_replay, 1)
    batch = filled_replay.sample(16, 3, rng=np.random.default_rng(0))
    probed = agent.probe_loss(batch)
    params = [p for module in probed.modules.values() for p in module]
    hessian = Hessian(probed.loss, params)
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(hessian.size, generator=generator) for _ in "uv")

    forth, back = float(u @ hessian(v)), float(v @ hessian(u))

    assert forth == pytest.approx(back, rel=1e-3, abs=1e-4 * float(hessian(v).norm() * u.norm()))
    assert hessian.size == flatten(params).numel()
