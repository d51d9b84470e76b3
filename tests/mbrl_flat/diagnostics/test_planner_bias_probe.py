"""Plans whose imagined and realised returns are known."""

from types import SimpleNamespace

import pytest
import torch

from mbrl_flat.data.episode import Episode
from mbrl_flat.diagnostics.planner_bias_probe import PlanFollower, PlannerBiasProbe, plan_errors
from mbrl_flat.diagnostics.probe import NothingToMeasure
from mbrl_flat.errors import UserError

EXACT = 1.0 / (1.0 - 0.9)


class EndlessAgent:
    """Reward 1 for ever: every value is 10, and so is that of every plan."""

    discount = 0.9
    planner = None

    def posterior(self, batch):
        return batch.obs["state"]

    def value(self, latent):
        return torch.full(latent.shape[:-1], EXACT)


def plan(agent, obs, generator, *, horizon, num_samples):
    """Rewards overrated by a tenth, and no error in the value of where the plan leads."""
    num = obs["state"].shape[0]
    extra = sum(0.1 * 0.9**step for step in range(horizon))
    return torch.zeros(num, horizon, 1), torch.full((num,), EXACT + extra)


def played(length, *, terminated=False):
    def play(mode, *, agent, wrap=None):
        agent.initial_state(2)
        for _ in range(length):
            agent.act({"state": torch.zeros(2, 1)}, {}, mode=mode, generator=None)
        return [
            Episode(
                obs={"state": torch.zeros(length + 1, 1)},
                action=torch.zeros(length, 1),
                reward=torch.ones(length),
                terminated=terminated,
            )
            for _ in range(2)
        ]

    return SimpleNamespace(agent=EndlessAgent(), play=play)


@pytest.mark.parametrize("horizon", [1, 3, 5])
def test_overrated_rewards_add_up_along_the_horizon(horizon):
    row = PlannerBiasProbe(plan=plan, horizons=[horizon]).measure_run(played(11))

    expected = 0.1 * (1.0 - 0.9**horizon) / (1.0 - 0.9)
    assert row[f"probe/planner/bias_{horizon}"] == pytest.approx(expected, abs=1e-5)
    assert row[f"probe/planner/relative_bias_{horizon}"] == pytest.approx(
        expected / EXACT, rel=1e-4
    )
    assert row[f"probe/planner/bias_{horizon}_low"] == pytest.approx(expected, abs=1e-4)


def test_a_plan_that_a_time_limit_cuts_is_not_judged_and_one_that_the_task_ends_is():
    agent = EndlessAgent()
    imagined = [torch.zeros(1)] * 3
    (cut,) = played(7).play("eval", agent=PlanFollower(agent, plan, 3, None))[:1]
    (over,) = played(7, terminated=True).play("eval", agent=PlanFollower(agent, plan, 3, None))[:1]

    (errors,), _ = plan_errors(agent, [cut], imagined, 3)
    (ended,), _ = plan_errors(agent, [over], imagined, 3)

    assert len(errors) == 2
    torch.testing.assert_close(-errors, torch.full((2,), EXACT, dtype=torch.float64))
    torch.testing.assert_close(-ended[2], torch.tensor(1.0, dtype=torch.float64))


def test_several_numbers_of_samples_have_names_of_their_own():
    probe = PlannerBiasProbe(plan=plan, horizons=[2], num_samples=[16, 64])

    row = probe.measure_run(played(6))

    assert {"probe/planner/bias_2_samples_16", "probe/planner/bias_2_samples_64"} <= set(row)


def test_what_cannot_be_planned_is_named():
    with pytest.raises(NothingToMeasure, match="no episode is as long as a plan"):
        PlannerBiasProbe(plan=plan, horizons=[9]).measure_run(played(5))
    run = SimpleNamespace(agent=object(), play=None)
    with pytest.raises(NothingToMeasure, match="does not plan"):
        PlannerBiasProbe(plan=plan).measure_run(run)
    with pytest.raises(UserError, match=r"at least 1, got \[0\]"):
        PlannerBiasProbe(plan=plan, horizons=[0])
