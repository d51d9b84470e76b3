"""Agents from Python: the same run as the command, and the actions of ``act``."""

import json
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

import mbrl_flat
from mbrl_flat import STORM, TDMPC2
from mbrl_flat.cli import main as cli
from mbrl_flat.errors import UserError

SETTINGS = {
    "eval_every": 60, "eval_episodes": 1, "probe_every": 0, "log_every": 30, "checkpoint_every": 0,
    "seed_steps": 50, "device": "cpu", "threads": 1, "env.episode_length": 20,
}  # fmt: skip


def small(folder, **kwargs):
    settings = SETTINGS | kwargs.pop("settings", {})
    return TDMPC2("dummy:point", preset="debug", run_dir=folder, settings=settings, **kwargs)


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    drop = ("time",)
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(drop)} for line in lines]


def test_learning_is_the_run_of_the_command(tmp_path, monkeypatch):
    agent = small(tmp_path / "python", optimizer="sam", rho=0.02, seed=3).learn(90)
    words = ["agent=tdmpc2", "env=dummy", "env.task=point", "preset=debug", "optimizer=sam"]
    words += ["optimizer.rho=0.02", "seed=3", "steps=90", "progress=false"]
    words += [f"{key}={value}" for key, value in SETTINGS.items()]
    monkeypatch.setattr("sys.argv", ["train", *words, f"run_dir={tmp_path / 'command'}"])
    cli.train()

    assert agent.steps == 90
    assert rows(tmp_path / "python") == rows(tmp_path / "command")
    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints" / "latest.pt", weights_only=True)["agent"]
        for name in ("python", "command")
    )
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value)


def test_learning_twice_is_learning_once(tmp_path):
    settings = {"eval_every": 0}
    small(tmp_path / "twice", settings=settings).learn(60).learn(40)
    small(tmp_path / "once", settings=settings).learn(100)

    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints" / "latest.pt", weights_only=True)["agent"]
        for name in ("twice", "once")
    )
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value)


def test_callbacks_see_every_step_and_every_evaluation(tmp_path):
    steps, evaluations = [], []
    small(tmp_path / "run").learn(
        60, on_step=steps.append, on_evaluation=lambda step, row: evaluations.append((step, row))
    )

    assert steps[-1] == 60
    assert sorted(set(steps)) == steps
    assert [step for step, _ in evaluations] == [0, 60]
    assert all("eval/return_mean" in row for _, row in evaluations)


def test_a_prediction_is_what_the_agent_acts(tmp_path):
    found = small(tmp_path / "run")
    obs = np.array([0.3, -0.2, 0.1], np.float32)[: found._loaded().spec.obs["state"][0]]
    agent, spec = found._loaded().agent, found._loaded().spec
    state, generator = agent.initial_state(1), torch.Generator().manual_seed(0)
    for _ in range(3):
        expected, state = agent.act(
            {"state": torch.as_tensor(obs)[None]}, state, mode="eval", generator=generator
        )
        assert np.array_equal(found.predict(obs), expected[0].numpy())

    batch = np.stack([obs, obs, -obs])
    assert found.predict(batch).shape == (3, spec.action.size)


def test_a_saved_agent_predicts_as_before_and_learns_on(tmp_path):
    agent = small(tmp_path / "run").learn(60)
    obs = np.zeros(agent._loaded().spec.obs["state"], np.float32)
    action = agent.predict(obs)

    loaded = TDMPC2.load(agent.save(tmp_path / "saved"))

    assert np.array_equal(loaded.predict(obs), action)
    assert loaded.steps == 60
    with pytest.raises(UserError, match="is a run of tdmpc2, not of storm"):
        STORM.load(tmp_path / "saved")
    with pytest.raises(UserError, match="never overwritten"):
        agent.save(tmp_path / "saved")


class Tilt(gym.Env):
    """Actions between 2 and 6; the reward is highest at 5."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gym.spaces.Box(2.0, 6.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32), {}

    def step(self, action):
        self.count += 1
        obs = self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32)
        return obs, -abs(float(action[0]) - 5.0), False, self.count == 25, {}


@pytest.mark.parametrize("env", [Tilt(), Tilt])
def test_an_environment_of_the_users_own(tmp_path, env):
    settings = {k: v for k, v in SETTINGS.items() if not k.startswith("env.")}
    agent = TDMPC2(env, preset="debug", run_dir=tmp_path / "run", settings=settings).learn(60)

    action = agent.predict(np.zeros(4, np.float32))

    assert agent._checkpoint.exists()
    assert action.shape == (1,)
    assert 2.0 <= action[0] <= 6.0


def test_what_cannot_be_set_is_named(tmp_path):
    with pytest.raises(UserError, match=r"agent\.config\.horizn"):
        small(tmp_path / "run", settings={"agent.config.horizn": 3})
    with pytest.raises(UserError, match="learn"):
        small(tmp_path / "run").save(tmp_path / "saved")


def test_the_package_itself_imports_no_agent():
    assert set(mbrl_flat.__all__) == {"DreamerV3", "STORM", "TDMPC2", "TWISTER"}
    with pytest.raises(AttributeError, match="nothing"):
        _ = mbrl_flat.nothing


OWN = {k: v for k, v in SETTINGS.items() if not k.startswith("env.")}


class Drifting(Tilt):
    """Draws from NumPy's global state, which ``reset(seed=...)`` does not seed."""

    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, reward + float(np.random.rand()), *rest  # noqa: NPY002


def test_an_environment_that_draws_globally_learns_twice_as_once(tmp_path, capfd):
    settings = OWN | {"eval_every": 0}
    for folder, parts in (("twice", (60, 30)), ("once", (90,))):
        agent = TDMPC2(Drifting, preset="debug", run_dir=tmp_path / folder, settings=settings)
        for steps in parts:
            agent.learn(steps)

    assert "'Drifting' draws from the global random state of numpy.random" in capfd.readouterr().err
    assert rows(tmp_path / "twice")[-1] == rows(tmp_path / "once")[-1]


class FourValues(Tilt):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class OnlyObservation(Tilt):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class Dividing(Tilt):
    def step(self, action):
        return super().step(1 / 0)


class NoActions(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (FourValues, r"'FourValues' failed in step\(\): .*five things: observation, reward, term"),
        (gym.wrappers.TimeLimit(FourValues(), 9), r"'FourValues' failed in step.*five things"),
        (OnlyObservation, r"'OnlyObservation' failed in reset\(\): .*observation and a dict"),
        (partial(Dividing), r"'Dividing' failed in step\(\): ZeroDivisionError: division by zero"),
        (NoActions, r"'NoActions' has no action_space; define it"),
        (dict, r"environment is a dict; give a gymnasium\.Env, its class or a function"),
    ],
)
def test_a_fault_of_the_users_environment_is_named(tmp_path, env, message):
    with pytest.raises(UserError, match=message):
        TDMPC2(env, preset="debug", run_dir=tmp_path / "run", settings=OWN).learn(60)


def test_settings_of_the_environment_hold_for_one_of_the_users_own(tmp_path):
    settings = OWN | {"env.action_repeat": 5}
    agent = TDMPC2(Tilt, preset="debug", run_dir=tmp_path / "run", settings=settings)

    assert agent._loaded().spec.action_repeat == 5


def test_an_environment_that_was_given_is_asked_for_again(tmp_path):
    agent = TDMPC2(Tilt, preset="debug", run_dir=tmp_path / "run", settings=OWN).learn(60)

    programs = agent.export(tmp_path / "programs")
    assert [file.name for file in programs] == ["policy.pt2", "planner.pt2", "export.json"]
    assert repr(agent).startswith("TDMPC2(Tilt-from-python, preset=debug, optimizer=adam, steps=60")
    with pytest.raises(UserError, match=r"this run, Tilt, was given from Python.*env=\.\.\."):
        TDMPC2.load(tmp_path / "run").predict(np.zeros(4, np.float32))
    assert TDMPC2.load(tmp_path / "run", env=Tilt).predict(np.zeros(4, np.float32)).shape == (1,)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (np.zeros(5, np.float32), r"'state' has shape \(5,\), and the agent takes \(4,\)"),
        (np.zeros((2, 3), np.float32), r"shape \(3,\)"),
        ({"position": 1.0}, r"give an observation of Box"),
    ],
)
def test_an_observation_of_another_kind_is_refused(tmp_path, obs, message):
    agent = TDMPC2(Tilt, preset="debug", settings=OWN)

    with pytest.raises(UserError, match=message):
        agent.predict(obs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"optimizer": "smm"}, r"^Unknown optimizer 'smm'; did you mean 'sam'"),
        ({"preset": "cpuu"}, r"^Unknown preset 'cpuu'; did you mean 'cpu'\?$"),
        ({"rho": 0.1}, r"^Unknown key 'optimizer.rho': this optimizer has no radius; take one"),
        ({"settings": {"eval_evry": 3}}, r"^Unknown key 'eval_evry'; did you mean 'eval_every'"),
        (
            {"settings": {"seed_steps": "few"}},
            r"^seed_steps must be a whole number or null, got 'few'\.$",
        ),
        ({"optimizer": "sam", "rho": -1}, "^rho must be a number of at least 0 .* got -1; rho=0"),
        ({"optimizer": "sam", "settings": {"optimizer.every": 0}}, "^every must be at least 1, go"),
        (
            {"optimizer": torch.optim.SGD},
            r"^optimizer must be a name such as 'cpu' or 'sam', got",
        ),
        ({"preset": 3}, "^preset must be a name"),
        ({"seed": -1}, "^seed must"),
        ({"settings": {"eval_every": -1}}, "^eval_every must be at least 0, got -1"),
        ({"settings": {"agent.config.horizon": -1}}, "horizon must be at least 1, got -1"),
        ({"settings": [3]}, r"^settings must be values by dotted names, got \[3\]"),
    ],
)
def test_a_wrong_argument_gets_the_message_of_the_command(kwargs, message):
    with pytest.raises(UserError, match=message):
        TDMPC2("dummy:point", **{"preset": "debug", **kwargs})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((60.5,), r"^steps must be a whole number, got 60\.5\.$"),
        (("many",), r"^steps must be a whole number, got 'many'\.$"),
        ((None,), r"^steps must be a whole number, got None\.$"),
        ((0,), r"^steps must be at least 1, got 0\.$"),
    ],
)
def test_a_number_of_steps_is_a_whole_number(tmp_path, arguments, message):
    agent = small(tmp_path / "run")

    with pytest.raises(UserError, match=message):
        agent.learn(*arguments)
    with pytest.raises(UserError, match=r"^on_step must be a function, got 3\.$"):
        agent.learn(60, on_step=3)


def test_an_argument_that_an_agent_does_not_know_is_answered_with_those_that_it_knows():
    with pytest.raises(TypeError, match=r"^STORM: .*'lr'; it takes env, and by name preset, optim"):
        STORM("dummy:point", lr=0.1)
    with pytest.raises(TypeError, match=r"^STORM: too many positional arguments; it takes env"):
        STORM("dummy:point", "debug")
    with pytest.raises(UserError, match=r"^env must be a task, a gymnasium\.Env, .* got 3\.$"):
        STORM(3)


class Wider(Tilt):
    """One action more."""

    action_space = gym.spaces.Box(2.0, 6.0, (2,), np.float32)


def test_an_environment_with_other_spaces_is_refused_when_it_is_given(tmp_path):
    TDMPC2(Tilt, preset="debug", run_dir=tmp_path / "run", settings=OWN).learn(60)

    with pytest.raises(UserError, match="had 1 continuous actions, now has 2"):
        TDMPC2.load(tmp_path / "run", env=Wider)


@pytest.mark.parametrize(("episodic", "notes"), [(False, 1), (True, 0)])
def test_a_termination_that_nobody_learns_is_noted_once(tmp_path, capsys, episodic, notes):
    settings = SETTINGS | {"eval_every": 0, "seed_steps": 58, "agent.config.episodic": episodic}
    agent = TDMPC2(
        "dummy:point-terminating", preset="debug", run_dir=tmp_path / "run", settings=settings
    )
    agent.learn(60)

    assert capsys.readouterr().out.count("note: an episode terminated") == notes
