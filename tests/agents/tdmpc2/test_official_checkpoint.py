"""Checkpoints of the official TD-MPC2 code: their networks, restated here, and ours agree.

The restatement follows the official names and shapes: SimNorm groups are neighbours, and every
parameter of the Q-functions has the members of the ensemble in front.
"""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from torch.nn import functional as F

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import SIZES, TDMPC2Config
from mbrl_flat.agents.tdmpc2.official_checkpoint import convert
from mbrl_flat.agents.tdmpc2.policy import Policy
from mbrl_flat.agents.tdmpc2.world_model import WorldModel
from mbrl_flat.cli import main as cli
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import LoadsPretrained
from mbrl_flat.optim import make_optimizer
from mbrl_flat.specs import Continuous, EnvSpec, TaskSpec

OBS, ACTIONS = 7, 3
SPEC = EnvSpec(obs={"state": (OBS,)}, action=Continuous(dim=ACTIONS), episode_length=50)
CONFIG = TDMPC2Config(size="debug")
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def network(sizes, *, last_normed, members=()):
    """Parameters of one network under the names that its layers have there."""
    weights = {}
    for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
        weights[f"{layer}.weight"] = torch.randn(*members, n_out, n_in, dtype=torch.float64) / 4
        names = ["bias", "ln.weight", "ln.bias"]
        for name in names if last_normed or layer < len(sizes) - 2 else names[:1]:
            weights[f"{layer}.{name}"] = torch.randn(*members, n_out, dtype=torch.float64)
    return weights


def named(prefix, weights):
    return {f"{prefix}.{name}": value for name, value in weights.items()}


def official(config, *, seed=0, obs=OBS, actions=ACTIONS, tasks=2):
    """A state as ``WorldModel.state_dict`` gives it, with random weights and targets apart."""
    torch.manual_seed(seed)
    dims = config.dims
    latent, hidden = dims["latent_dim"], [dims["mlp_dim"]] * 2
    extra, members = config.task_dim, (dims["num_q"],)
    encoder = [obs + extra, *[dims["enc_dim"]] * max(dims["num_enc_layers"] - 1, 1), latent]
    pair = latent + extra + actions
    q = [pair, *hidden, config.num_bins]
    state = {
        **named("_encoder.state", network(encoder, last_normed=True)),
        **named("_dynamics", network([pair, *hidden, latent], last_normed=True)),
        **named("_reward", network(q, last_normed=False)),
        **named("_pi", network([latent + extra, *hidden, 2 * actions], last_normed=False)),
        **named("_Qs.params", network(q, last_normed=False, members=members)),
        **named("_target_Qs_params", network(q, last_normed=False, members=members)),
        "log_std_min": torch.tensor(-10.0),
        "log_std_dif": torch.tensor(12.0),
        "_Qs.params.__batch_size": torch.Size(members),
        "_Qs.params.__device": torch.device("cpu"),
        "_Qs.module.0.weight": torch.zeros(1),
    }
    if config.episodic:
        state |= named("_termination", network([latent, *hidden, 1], last_normed=False))
    if config.task_dim:
        state["_task_emb.weight"] = torch.randn(tasks, extra, dtype=torch.float64)
        state["_action_masks"] = torch.ones(tasks, actions)
    return state


def before_compile(state):
    """The same state under the names of checkpoints from before torch.compile."""
    names = ["weight", "bias", "ln.weight", "ln.bias"]
    old = {}
    for name, value in state.items():
        for prefix, short in (("_Qs.params.", "_Qs"), ("_target_Qs_params.", "_target_Qs")):
            if name.startswith(prefix) and "__" not in name:
                layer, part = name.removeprefix(prefix).split(".", 1)
                old[f"{short}.params.{4 * int(layer) + names.index(part)}"] = value
                break
        else:
            if name.startswith(("_encoder", "_dynamics", "_reward", "_pi", "_termination")):
                old[name] = value
    return old


def forward(state, prefix, x, *, simnorm=False, member=None):
    """One network there: linear, LayerNorm and Mish; at the end linear, or linear and SimNorm."""
    layer = 0
    while f"{prefix}.{layer}.weight" in state:

        def part(name, layer=layer):
            value = state[f"{prefix}.{layer}.{name}"]
            return value if member is None else value[member]

        x = F.linear(x, part("weight"), part("bias"))
        is_last = f"{prefix}.{layer + 1}.weight" not in state
        if f"{prefix}.{layer}.ln.weight" in state:
            x = F.layer_norm(x, x.shape[-1:], part("ln.weight"), part("ln.bias"))
            x = (
                x.unflatten(-1, (-1, 8)).softmax(-1).flatten(-2)
                if is_last and simnorm
                else F.mish(x)
            )
        layer += 1
    return x


def ours_of(latent):
    """Their latent in our order: member m of group g is m G + g here and g V + m there."""
    return latent.unflatten(-1, (-1, 8)).transpose(-1, -2).flatten(-2)


def built(config, state):
    weights = convert(state, SPEC, config)
    model, policy = WorldModel(SPEC, config).double().eval(), Policy(SPEC, config).double()
    model.load_state_dict(weights.model)
    policy.load_state_dict(weights.policy)
    return model, policy


@pytest.mark.parametrize("rename", [dict, before_compile], ids=["current", "before compile"])
@pytest.mark.parametrize(
    "config",
    [CONFIG, replace(CONFIG, episodic=True), replace(CONFIG, size="1"), replace(CONFIG, size="48")],
    ids=["debug", "episodic", "1", "48"],
)
def test_every_network_gives_what_the_official_one_gives(monkeypatch, config, rename):
    # The layout of the large size with its four encoder layers, at widths that take no time.
    monkeypatch.setitem(SIZES, "48", {**SIZES["debug"], "num_enc_layers": 4})
    state = official(config)
    model, policy = built(config, rename(state))
    obs = torch.randn(5, OBS, dtype=torch.float64)
    action = torch.rand(5, ACTIONS, dtype=torch.float64) * 2.0 - 1.0

    theirs = forward(state, "_encoder.state", obs, simnorm=True)
    latent = model.encode({"state": obs})
    torch.testing.assert_close(latent, ours_of(theirs), **EXACT)

    their_pair, pair = torch.cat([theirs, action], -1), torch.cat([latent, action], -1)
    after = forward(state, "_dynamics", their_pair, simnorm=True)
    torch.testing.assert_close(model.dynamics(pair), ours_of(after), **EXACT)
    torch.testing.assert_close(model.reward(pair), forward(state, "_reward", their_pair), **EXACT)
    for prefix, ensemble in (("_Qs.params", model.q), ("_target_Qs_params", model.target_q)):
        heads = [forward(state, prefix, their_pair, member=i) for i in range(ensemble.num)]
        torch.testing.assert_close(ensemble(pair), torch.stack(heads), **EXACT)
    torch.testing.assert_close(policy.net(latent), forward(state, "_pi", theirs), **EXACT)
    if model.termination is not None:
        ends = forward(state, "_termination", theirs)
        torch.testing.assert_close(model.termination(latent), ends, **EXACT)


SEVERAL = EnvSpec(
    obs={"state": (OBS,), "task": (1,)},
    action=Continuous(dim=ACTIONS),
    episode_length=50,
    tasks=(
        TaskSpec(name="all", obs_size=OBS, action_size=ACTIONS, episode_length=50),
        TaskSpec(name="one", obs_size=4, action_size=1, episode_length=50),
    ),
)


def test_networks_of_several_tasks_give_what_the_official_ones_give():
    config = replace(CONFIG, task_dim=5)
    state = official(config)
    weights = convert(state, SEVERAL, config)
    model, policy = WorldModel(SEVERAL, config).double().eval(), Policy(SEVERAL, config).double()
    model.load_state_dict(weights.model)
    policy.load_state_dict(weights.policy)
    obs, action = torch.randn(4, OBS).double(), torch.rand(4, ACTIONS).double()
    task = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    noise = torch.randn(4, ACTIONS, dtype=torch.float64)
    table = state["_task_emb.weight"]
    table = table / table.norm(dim=-1, keepdim=True).clamp(min=1.0)
    embedding = table[task[:, 0].long()]

    theirs = forward(state, "_encoder.state", torch.cat([obs, embedding], -1), simnorm=True)
    latent = model.encode({"state": obs, "task": task})
    torch.testing.assert_close(model.layout.state(latent), ours_of(theirs), rtol=1e-6, atol=1e-6)
    their_pair = torch.cat([theirs, embedding, action], -1)
    after = ours_of(forward(state, "_dynamics", their_pair, simnorm=True))
    stepped = model.layout.state(model.step(latent, action))
    torch.testing.assert_close(stepped, after, rtol=1e-6, atol=1e-6)
    heads = [forward(state, "_Qs.params", their_pair, member=i) for i in range(model.q.num)]
    q = model.q(model.pair(latent, action))
    torch.testing.assert_close(q, torch.stack(heads), rtol=1e-6, atol=1e-6)
    mask = torch.ones(4, ACTIONS)
    mask[1:3, 1:] = 0.0
    mean, raw = forward(state, "_pi", torch.cat([theirs, embedding], -1)).chunk(2, -1)
    log_std = (-10.0 + 0.5 * 12.0 * (torch.tanh(raw) + 1.0)) * mask
    expected = torch.tanh(mean * mask + noise * mask * log_std.exp())
    torch.testing.assert_close(policy(latent, noise).action, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("theirs", "ours", "spec", "tasks", "sentence"),
    [
        (5, 0, SPEC, 30, r"of 30 tasks, told apart by 5 .* set agent.config.task_dim=5 and env=m"),
        (0, 5, SEVERAL, 2, r"of a single task, and the agent has task_dim=5; set .*task_dim=0\."),
        (5, 5, SEVERAL, 30, "of 30 tasks, and this environment has 2; .* env.task=mt30"),
    ],
)
def test_a_checkpoint_of_other_tasks_is_refused(theirs, ours, spec, tasks, sentence):
    state = official(replace(CONFIG, task_dim=theirs), tasks=tasks)
    with pytest.raises(UserError, match=sentence):
        convert(state, spec, replace(CONFIG, task_dim=ours))


def test_a_policy_samples_what_the_official_one_samples():
    state = official(CONFIG)
    model, policy = built(CONFIG, state)
    obs = torch.randn(4, OBS, dtype=torch.float64)
    noise = torch.randn(4, ACTIONS, dtype=torch.float64)

    theirs = forward(state, "_encoder.state", obs, simnorm=True)
    mean, raw = forward(state, "_pi", theirs).chunk(2, -1)
    log_std = -10.0 + 0.5 * 12.0 * (torch.tanh(raw) + 1.0)
    expected = torch.tanh(mean + noise * log_std.exp())

    torch.testing.assert_close(policy(model.encode({"state": obs}), noise).action, expected)


def test_an_agent_acts_with_the_weights_and_keeps_its_optimizers():
    optimizer = partial(make_optimizer, "adam")
    agent = TDMPC2(SPEC, config=CONFIG, optimizer=optimizer, device=torch.device("cpu"))
    state = {"model": official(CONFIG)}

    assert isinstance(agent, LoadsPretrained)
    agent.load_pretrained(state)

    expected = convert(state, SPEC, CONFIG).model
    for name, value in agent.model.state_dict().items():
        assert torch.equal(value, expected[name].float()), name


@pytest.mark.parametrize("state", [[1, 2], {"model": [1, 2]}, {"model": {}}])
def test_a_file_without_weights_is_refused(state):
    with pytest.raises(UserError, match="no checkpoint of the official TD-MPC2 code"):
        convert(state, SPEC, CONFIG)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"_encoder.rgb.2.weight": torch.zeros(1)}, "trained from pixels"),
        ({"_pi.2.weight": None}, r"no checkpoint of the official .* lacks _pi\.2\.weight"),
        ({"_termination.0.weight": torch.zeros(1)}, "set agent.config.episodic=true"),
    ],
)
def test_what_is_no_checkpoint_of_states_is_refused(change, sentence):
    state = {k: v for k, v in {**official(CONFIG), **change}.items() if v is not None}

    with pytest.raises(UserError, match=sentence):
        convert({"model": state}, SPEC, CONFIG)


def test_a_checkpoint_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(UserError) as caught:
        convert(official(replace(CONFIG, size="cpu")), SPEC, CONFIG)

    message = str(caught.value)
    assert message.startswith("The checkpoint has size cpu (enc_dim 64, mlp_dim 128")
    assert "the agent has size debug (enc_dim 16, mlp_dim 32" in message
    assert message.endswith("set agent.config.size=cpu.")


def test_a_checkpoint_of_a_size_that_has_no_name_is_refused(monkeypatch):
    monkeypatch.setitem(SIZES, "cpu", {**SIZES["cpu"], "num_q": 4})
    state = official(replace(CONFIG, size="cpu"))
    monkeypatch.undo()

    with pytest.raises(UserError, match=r"an unknown size .* num_q 4\), and .* no size here"):
        convert(state, SPEC, CONFIG)


def test_a_checkpoint_of_another_task_is_refused_with_both_shapes():
    with pytest.raises(UserError, match=r"on 67 observations and 21 actions, .* has 7 and 3"):
        convert(official(CONFIG, obs=67, actions=21), SPEC, CONFIG)


def test_a_checkpoint_with_other_bins_is_refused():
    with pytest.raises(UserError, match=r"has 51 bins, .* has 101; set agent.config.num_bins=51"):
        convert(official(replace(CONFIG, num_bins=51)), SPEC, CONFIG)


PLANNER = [
    "env=dummy", "env.episode_length=5", "episodes=2", "device=cpu", "threads=1",
    "agent.config.planner.num_samples=16", "agent.config.planner.num_elites=4",
    "agent.config.planner.num_prior=4",
]  # fmt: skip


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """``mbrl-flat-evaluate`` in this process; returns its status and what it wrote."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        GlobalHydra.instance().clear()
        monkeypatch.setattr("sys.argv", ["mbrl-flat-evaluate", *arguments])
        try:
            cli.evaluate()
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    return run


def saved(path, config=CONFIG):
    """A file for the environment ``dummy``, which has 3 observations and 2 actions."""
    state = official(config, obs=3, actions=2)
    floats = {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
    torch.save({"model": floats}, path)


def test_the_command_evaluates_a_file(command, tmp_path):
    saved(tmp_path / "dummy-1.pt")

    status, text = command("checkpoint=dummy-1.pt", "agent.config.size=debug", *PLANNER)
    again = command("checkpoint=dummy-1.pt", "agent.config.size=debug", *PLANNER)

    assert status == 0
    assert "eval/return_mean" in text
    assert "eval/policy_return_mean" in text
    assert again == (0, text)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["checkpoint=dummy-1.pt"], "the agent has size 5 (enc_dim 256"),
        (["checkpoint=other.pt"], "There is no checkpoint at other.pt"),
        (["checkpoint=code.pt"], "would execute"),
        (["checkpoint=dummy-1.pt", "agent=random"], "reads no published checkpoints"),
        (["checkpoint=dummy-1.pt", "agent.config.sizes=5"], "'agent.config.size'"),
        (["run=runs/x"], "A run keeps its settings, but env=dummy was given"),
        (["checkpoint=best"], "A run keeps its settings, but env=dummy was given"),
    ],
)
def test_what_does_not_fit_gets_one_sentence(command, tmp_path, arguments, sentence):
    saved(tmp_path / "dummy-1.pt")
    torch.save({"model": {"_pi.0.weight": print}}, tmp_path / "code.pt")

    status, text = command(*arguments, "env=dummy")

    assert status == 2
    assert sentence in text
    assert text.count("\n") == 1
