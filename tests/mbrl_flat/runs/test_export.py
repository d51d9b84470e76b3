"""An exported program gives the agent's actions, through the command and through Python."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl_flat.cli import commands
from mbrl_flat.cli import main as cli
from mbrl_flat.errors import UserError
from mbrl_flat.evaluation.multitask import shapes_of
from mbrl_flat.runs import export
from mbrl_flat.runs.parts import build_agent

TINY = (
    "preset=debug", "device=cpu", "threads=1", "seed_steps=20", "steps=30", "progress=false",
    "eval_every=0", "probe_every=0", "env=dummy", "env.episode_length=10",
)  # fmt: skip
AGENTS = {
    "tdmpc2": ["agent.config.planner.iterations=1"],
    "dreamerv3": [],
    "storm": ["env.task=point-discrete", "env.obs=rgb"],
    "twister": ["env.obs=rgb"],
}


def agent_of(name, *words):
    """An agent with weights at random: those of a new one give all plans the same value."""
    config, parts = cli.compose_run(f"agent={name}", *TINY, *AGENTS[name], *words)
    spec = shapes_of(parts.vectors, parts.env, seed=0)
    agent = build_agent(config, parts, spec, torch.device("cpu"))
    modules = agent.model, getattr(agent, "policy", None) or agent.actor_critic
    with torch.no_grad():
        for module in modules:
            for param in module.parameters():
                param.add_(0.1 * torch.randn_like(param))
    return agent, spec


def observation(spec, generator):
    """Of one environment, as it gives them."""
    return {
        name: torch.randint(0, 256, (1, *shape), dtype=torch.uint8, generator=generator)
        if name in spec.images
        else torch.randn(1, *shape, generator=generator)
        for name, shape in spec.observed.items()
    }


def episode(program, agent, spec):
    """Actions of four steps, from the same random numbers and observations each time."""
    generator, state, actions = torch.Generator().manual_seed(1), agent.initial_state(1), []
    torch.manual_seed(3)
    with torch.no_grad():
        for step in range(4):
            is_first = torch.tensor([step == 0])
            action, state = program(observation(spec, generator), state, is_first)
            actions.append(action)
    return torch.stack(actions)


# Torch's note on tensors that share memory, such as the windows of a context.
@pytest.mark.filterwarnings("ignore:No complete tensor found")
@pytest.mark.parametrize(
    ("agent_name", "program", "words"),
    [
        ("tdmpc2", "policy", ()),
        ("tdmpc2", "planner", ()),
        ("tdmpc2", "planner", ("agent.config.planner_dtype=bfloat16",)),
        ("dreamerv3", "policy", ()),
        ("storm", "policy", ()),
        ("twister", "policy", ()),
    ],
)
def test_the_program_acts_as_the_agent(agent_name, program, words, tmp_path):
    agent, spec = agent_of(agent_name, *words)
    acting = export.programs_of(agent)[program]
    file, _ = export.write_torch(acting, export.example_inputs(agent, spec, 1), tmp_path / program)

    loaded = torch.export.load(file).module()

    generator = torch.Generator()

    def act(obs, state, is_first):
        generator.set_state(torch.get_rng_state())
        mode = "policy" if agent_name == "tdmpc2" and program == "policy" else "eval"
        state = agent.reset_state(state, is_first)
        found = agent.act(obs, state, mode=mode, generator=generator)
        torch.set_rng_state(generator.get_state())
        return found

    expected = episode(act, agent, spec)
    # Traced operations round bfloat16 in other places.
    tolerance = 0.05 if words else 1e-5
    torch.testing.assert_close(episode(loaded, agent, spec), expected, rtol=0.0, atol=tolerance)
    assert expected.std() > 0.0


@pytest.mark.parametrize("program", ["policy", "planner"])
def test_an_onnx_program_acts_as_the_agent_with_the_same_random_numbers(program, tmp_path):
    reference = pytest.importorskip("onnx.reference")
    agent, spec = agent_of("tdmpc2")
    acting, inputs = export.programs_of(agent)[program], export.example_inputs(agent, spec, 1)
    inputs = (observation(spec, torch.Generator().manual_seed(0)), *inputs[1:])
    draws = [value for _, value in export.draws_of(acting, inputs)]
    with torch.no_grad():
        expected, _ = acting(*inputs, draws)

    file, described = export.write_onnx(acting, inputs, tmp_path / program)

    given = [*inputs[0].values(), *inputs[1].values(), inputs[2], *draws]
    feed = dict(zip(described["inputs"], (value.numpy() for value in given), strict=True))
    program = reference.ReferenceEvaluator(str(file))
    action = program.run(None, feed)[0]
    assert list(program.output_names) == described["outputs"]
    assert described["outputs"][0] == "action"
    np.testing.assert_allclose(action, expected.numpy(), rtol=0.0, atol=1e-5)


def test_the_command_writes_programs_and_what_they_take(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    monkeypatch.setattr("sys.argv", ["train", "agent=tdmpc2", *TINY, f"run_dir={run}"])
    cli.train()
    monkeypatch.setattr("sys.argv", ["export", f"run={run}", "--format", "torch"])
    cli.export()

    written = json.loads((run / "export" / "export.json").read_text())
    assert written["step"] == 30
    assert written["planner"]["inputs"]["state.mean"]["shape"][0] == 1
    planner = torch.export.load(run / "export" / written["planner"]["file"]).module()
    obs = {"state": torch.zeros(written["planner"]["inputs"]["obs.state"]["shape"])}
    state = {"mean": torch.zeros(1, 3, 2), "value": torch.zeros(1)}
    action, after = planner(obs, state, torch.ones(1, dtype=torch.bool))
    assert action.abs().max() <= 1.0
    assert after["mean"].shape == state["mean"].shape

    for words, said in (
        (["--format", "tflite"], "format must be torch or onnx, got 'tflite'"),
        (["rows=0"], "rows must be at least 1"),
    ):
        monkeypatch.setattr("sys.argv", ["export", f"run={run}", *words])
        with pytest.raises(SystemExit) as status:
            cli.export()
        assert status.value.code == 2
        assert said in capsys.readouterr().err


def test_a_folder_that_disappears_while_a_program_is_traced_is_made_again(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()

    def traced(*given):
        out.rmdir()
        return torch.export.export(torch.nn.Linear(2, 1), (torch.zeros(1, 2),))

    monkeypatch.setattr(export, "export_program", traced)
    file, _ = export.write_torch(None, ({}, {}, torch.ones(1)), out / "policy")

    assert torch.export.load(file).module()(torch.zeros(1, 2)).shape == (1, 1)


def test_a_random_agent_has_nothing_to_export(tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr("sys.argv", ["train", "agent=random", *TINY, f"run_dir={run}"])
    cli.train()
    config, parts = cli.compose_run("agent=random", *TINY)
    how = {"format": "torch", "checkpoint": "latest", "rows": 1, "out": tmp_path / "out"}
    with pytest.raises(UserError, match="no network to export"):
        export.export_run(config, parts, run, **how)


def test_a_pretrained_agent_is_exported_by_its_name(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        commands, "export_run", lambda *run, **how: calls.append((run[2], how["out"])) or []
    )
    monkeypatch.setattr("sys.argv", ["export", "pretrained=walker-stand"])
    cli.export()

    (folder, out), *_ = calls
    assert (folder / "checkpoints" / "latest.pt").is_file()
    assert out == Path("runs/pretrained/walker-stand/export")
    monkeypatch.setattr("sys.argv", ["export", "pretrained=walker-stand", "run=somewhere"])
    with pytest.raises(SystemExit):
        cli.export()
    assert "Give run=FOLDER or pretrained=NAME, not both." in capsys.readouterr().err
