"""A step that is not finite stops the run or is skipped, of the model and of the policy."""

import pytest
import torch

from mbrl_flat.agents.tdmpc2.policy import RunningScale
from mbrl_flat.errors import NonFiniteError


def test_a_skipped_step_leaves_every_weight_as_it_was(make_agent, make_batch32, by_hand):
    agent = make_agent(on_nonfinite="skip")
    batch = make_batch32()
    batch.obs["state"][0, 1] = float("nan")
    before = by_hand.all_parameters(agent.model, agent.policy)
    del before["target_q"]

    metrics = agent.update(batch)

    assert metrics["optim/skipped"] == 1.0
    after = by_hand.all_parameters(agent.model, agent.policy)
    for module, parameters in before.items():
        assert all(torch.equal(value, after[module][name]) for name, value in parameters.items())
    assert agent.scale.value.item() == 1.0
    assert all(p.isfinite().all() for p in agent.model.target_q.parameters())


def test_a_loss_that_is_not_finite_names_the_modules_it_reached(make_agent, make_batch32):
    agent = make_agent()
    batch = make_batch32()
    batch.reward[0, 0] = float("nan")

    with pytest.raises(NonFiniteError, match="The loss is nan; not finite: the gradient of"):
        agent.update(batch)


def test_a_policy_loss_that_is_not_finite_stops_the_run_or_is_skipped(make_agent, make_batch32):
    agent = make_agent()
    agent.scale.value.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="gradient of the policy"):
        agent.update(make_batch32())

    agent = make_agent(on_nonfinite="skip")
    agent.scale.value.fill_(float("nan"))
    before = [p.detach().clone() for p in agent.policy.parameters()]
    row = agent.update(make_batch32())
    assert row["optim/skipped"] == 1.0
    assert all(map(torch.equal, agent.policy.parameters(), before))

    agent.scale.value.fill_(1.0)
    row = agent.update(make_batch32())
    assert row["optim/skipped"] == 0.0
    assert not all(map(torch.equal, agent.policy.parameters(), before))


def test_values_that_are_not_finite_leave_the_running_scale_alone():
    scale = RunningScale(0.5, torch.device("cpu"))

    scale.update(torch.tensor([0.0, float("nan"), 5.0]))

    assert scale.value.item() == 1.0
