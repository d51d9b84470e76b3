"""A run folder of someone else, given to the real commands: nothing in its configuration runs."""

import copy
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.cli import main as cli
from mbrl_flat.cli.composition import load_settings
from mbrl_flat.errors import UserError

TINY = [
    "env=dummy", "preset=debug", "progress=false", "threads=1", "device=cpu", "steps=18",
    "env.episode_length=8", "seed_steps=16", "eval_every=0", "probe_every=0",
    "agent.config.batch_size=4", "agent.config.horizon=2", "optimizer=sam",
]  # fmt: skip


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("executed").absolute(),)


def targets(folder):
    """What would make the file ``executed``, by the ways in which parts are built."""
    made = str(folder / "executed")
    return {
        "eval": {"_target_": "builtins.eval", "_args_": [f"open({made!r}, 'w')"]},
        "exec": {"_target_": "builtins.exec", "_args_": [f"open({made!r}, 'w')"]},
        "open": {"_target_": "builtins.open", "file": made, "mode": "w"},
        "system": {"_target_": "os.system", "command": f"touch {made}"},
        "run": {"_target_": "subprocess.run", "args": ["touch", made]},
        "torch": {"_target_": "torch.load", "f": str(folder / "a.pt"), "weights_only": False},
        "numpy": {"_target_": "numpy.load", "file": str(folder / "a.npy"), "allow_pickle": True},
        "pickle": {"_target_": "pickle.loads", "_args_": ["x"]},
        "write_text": {"_target_": "pathlib.Path.write_text", "_args_": [made, "x"]},
        "ours": {"_target_": "mbrl_flat.runtime.files.write_text_atomically", "path": made},
        "through": {"_target_": "mbrl_flat.runs.folder.shutil.rmtree", "path": str(folder)},
        "hydra": {"_target_": "hydra.utils.call", "config": {"_target_": "os.system"}},
        "partial": {"_target_": "functools.partial", "_args_": ["os.system"], "_partial_": True},
        "attribute": {"_target_": "mbrl_flat.envs.gym.make.__globals__.clear"},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        GlobalHydra.instance().clear()
        patch.chdir(folder)
        patch.setattr("sys.argv", ["mbrl-flat-train", *TINY, "run_dir=run"])
        cli.train()
        torch.save(Payload(), folder / "a.pt")
        np.save(folder / "a.npy", np.array([Payload()]), allow_pickle=True)
    return folder


PLACES = [
    "agent", "agent.config", "agent.config.planner", "agent.config.size", "env", "env.task",
    "env.episode_length", "optimizer", "optimizer.base", "optimizer.rho", "optimizer.only",
    "probes", "probes.sharpness", "probes.other", "wandb", "wandb.tags", "offline_data",
    "names.task", "names.other", "steps", "objective", "new", "checkpoint_every", "resume",
]  # fmt: skip


def placed(settings, place, node, wrap):
    changed = copy.deepcopy(settings)
    *above, last = place.split(".")
    inner = changed
    for key in above:
        inner = inner[key]
    wrapped = {"as it is": node, "in a list": [[node]], "in a mapping": {"x": [{"y": node}]}}
    inner[last] = wrapped[wrap]
    return changed


@pytest.fixture
def saved(run):
    """The run's configuration, which a test may write over."""
    file = run / "run" / "config.yaml"
    text = file.read_text()
    before = sorted(run.rglob("*"))
    yield yaml.safe_load(text), file
    file.write_text(text)
    assert not (run / "executed").exists()
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("place", PLACES)
def test_every_target_is_refused_wherever_it_is(run, saved, place):
    settings, file = saved
    nodes = list(targets(run).values())
    for number, wrap in enumerate(("as it is", "in a list", "in a mapping")):
        for node in nodes[(PLACES.index(place) + number) % 3 :: 3]:  # each in each wrap in 8 places
            file.write_text(json.dumps(placed(settings, place, node, wrap)))  # which is YAML
            with pytest.raises(UserError, match="runs code that is not part of mbrl_flat") as error:
                load_settings(str(file.parent))
            assert node["_target_"] in str(error.value)


COMMANDS = (cli.evaluate, cli.train, cli.probe, cli.export)
PAIRS = [(n, COMMANDS[(i + j) % 4]) for i, n in enumerate(targets(Path())) for j in (0, 2)]


@pytest.mark.parametrize(("name", "entry"), PAIRS)
def test_no_command_executes_what_a_configuration_names(fails, run, saved, name, entry):
    """Every target by two commands, and every command with seven of them."""
    settings, file = saved
    place = PLACES[list(targets(Path())).index(name)]
    file.write_text(yaml.safe_dump(placed(settings, place, targets(run)[name], "in a list")))

    message = fails(f"{'resume' if entry is cli.train else 'run'}={file.parent}", entry=entry)

    assert "runs code that is not part of mbrl_flat" in message


@pytest.mark.parametrize("wrap", ["as it is", "in a list", "in a mapping"])
def test_whom_a_folder_trusts_is_not_read(command, run, saved, wrap):
    settings, file = saved
    settings["trust"] = ["os", "builtins"]
    settings = placed(settings, "optimizer.base", targets(run)["system"], wrap)
    file.write_text(yaml.safe_dump(settings))

    with pytest.raises(UserError, match="not part of mbrl_flat"):
        load_settings(str(file.parent))


def test_the_payloads_would_work(tmp_path, monkeypatch):
    """Otherwise the tests above could not fail."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "executed"
    torch.save(Payload(), "a.pt")
    for load in (
        lambda: torch.load("a.pt", weights_only=False),
        lambda: eval(f"open({str(made)!r}, 'w')").close(),
        lambda: os.system(f"touch {made}"),
        lambda: pickle.loads(pickle.dumps(Payload())),
    ):
        load()
        assert made.exists()
        made.unlink()
