"""Control by planning with a model that learned from recordings: exact models have no bias."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mbrl_flat.agents.tdmpc2.offline import OfflineTDMPC2
from mbrl_flat.errors import UserError
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.studies.offline.control import Control
from mbrl_flat.studies.offline.recording import Recording
from mbrl_flat.studies.offline.transitions import Scale, Transitions

STEPS, DISCOUNT = 12, 0.9
TENTHS = Scale(torch.zeros(1).double(), 10.0 * torch.ones(1).double())
SMALL = Control(episodes=2, horizons=(1, 3), executed=(1, 4), num_samples=64, num_elites=8)


class Line:
    """``x' = x + a``, reward ``a``, twelve steps."""

    def __init__(self, seed):
        self.action_space = SimpleNamespace(shape=(1,))
        self.x = self.time = 0

    def reset(self, *, seed):
        self.x = seed % 7
        return {"state": np.array([self.x], np.float32)}, {}

    def step(self, action):
        self.x, self.time = self.x + float(action[0]), self.time + 1
        obs = {"state": np.array([self.x], np.float32)}
        return obs, float(action[0]), False, self.time == STEPS, {}

    def close(self):
        pass


class Exact:
    """A model of ``Line`` with an arbitrary critic; every imagined reward is ``overrated`` more."""

    def __init__(self, overrated=0.0):
        self.overrated = overrated

    def encode(self, obs):
        return 10.0 * obs

    def imagined_return(self, latent, actions, discount):
        weights = discount ** torch.arange(actions.shape[2] - 1)
        rewards = ((actions[:, :, :-1, 0] + self.overrated) * weights).sum(-1)
        end = latent + actions[:, :, :-1, 0].sum(-1)
        return rewards + discount ** len(weights) * (0.1 * end + actions[:, :, -1, 0])


@pytest.mark.parametrize("overrated", [0.0, 0.5])
@pytest.mark.parametrize("k", [1, 4])
def test_the_bias_of_executed_plans_is_what_the_model_overrates(overrated, k):
    model = Exact(overrated)
    played = SMALL.play(
        model, Line, scale=TENTHS, seed=1, discount=DISCOUNT, horizon=k, replan=False
    )

    bias = torch.from_numpy(played.imagined - played.realised)
    expected = overrated * sum(DISCOUNT**i for i in range(k))
    torch.testing.assert_close(bias, torch.full_like(bias, expected), atol=1e-5, rtol=0)
    assert len(bias) == STEPS // k - 1  # the plan that ends with the episode has no value after it


def test_planning_finds_the_best_actions_and_repeats_itself():
    runs = [
        SMALL.play(Exact(), Line, scale=TENTHS, seed=3, discount=DISCOUNT, horizon=3)
        for _ in range(2)
    ]
    assert (runs[0].returns > 0.9 * STEPS).all()
    np.testing.assert_array_equal(runs[0].returns, runs[1].returns)


def test_the_imagined_return_is_made_of_the_model_s_predictions():
    torch.manual_seed(0)
    spec = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=9)
    model = OfflineTDMPC2(spec, size="debug", batch_size=4)
    reward = torch.rand(2, 9)
    data = Transitions(
        obs=torch.randn(2, 10, 3), action=torch.rand(2, 9, 2), reward=reward, returns=reward
    )
    model.train(False)
    model.calibrate(data.every(1, 1))
    part = data.every(2, 4)
    said = model.predict(part, 3)

    actions = part.batch.action[:, None]
    value = model.imagined_return(model.encode(part.obs[:, 0]), actions, DISCOUNT)[:, 0]
    discounts = DISCOUNT ** torch.arange(3)
    expected = (said.reward * discounts).sum(1) + DISCOUNT**3 * said.value[:, 3]
    torch.testing.assert_close(value, expected)


def test_every_kind_of_episode_is_a_column_of_the_row():
    recording = Recording(env="mbrl_flat.envs.dummy.make", task="point", episodes=2, length=8)
    spec = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=50)
    model = OfflineTDMPC2(spec, size="debug")
    model.train(False)
    scale = Scale(torch.zeros(3).double(), torch.ones(3).double())

    wrappers = "mbrl_flat.envs.perturbations"
    perturbations = {
        "delay": {"wrapper": f"{wrappers}.ActionDelay", "strengths": [1, 2]},
        "noise": {"wrapper": f"{wrappers}.ObservationNoise", "strengths": [0.1], "scaled": True},
    }
    ours = replace(SMALL, perturbations=perturbations)

    row = ours.measure(model, recording, scale, seed=0, discount=DISCOUNT)

    assert set(row) == {
        *("return_1", "return_3", "return_delay_1", "return_delay_2", "return_noise_0.1"),
        *(f"plan_{name}_{k}" for name in ("bias", "relative_bias") for k in (1, 4)),
    }
    assert all(np.isfinite(value) for value in row.values())


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match="horizons from 1 on"):
        Control(horizons=(0,))
    with pytest.raises(UserError, match="at least one episode"):
        Control(episodes=0)
