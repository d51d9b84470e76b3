"""The configuration of a run that may come from someone else."""

import pytest
import yaml

from mbrl_flat.cli import commands
from mbrl_flat.errors import UserError
from mbrl_flat.runs.saved_config import foreign_targets, read_saved_config

CATALOGUE = {
    "mbrl_flat.agents.some.Agent": {"_target_": "mbrl_flat.agents.some.Agent", "_partial_": True},
    "mbrl_flat.envs.dmc.make": {},
    "torch.optim.Adam": {"_target_": "torch.optim.Adam", "_partial_": True},
}
NAMES = {"agent": "a", "env": "dmc", "task": "t", "optimizer": "o"}


@pytest.fixture
def read(tmp_path):
    def write_and_read(trust=(), **settings):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        given = {"run_dir": "runs/old", "names": NAMES, **settings}
        (folder / "config.yaml").write_text(yaml.safe_dump(given))
        return read_saved_config(folder, catalogue=CATALOGUE, trust=trust)

    return write_and_read


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch executed"},
        {"_target_": "torch.load", "f": "x", "weights_only": False},
        {"_target_": "pathlib.Path.write_text"},
        {"_target_": "numpy.load", "allow_pickle": True},
        {"_target_": "torch.optim.Adam.__init__"},
        {"_target_": "mbrl_flat.runs.folder.shutil.rmtree", "path": "x"},
        {"_target_": "mbrl_flat.runtime.files.write_text_atomically"},
        {"_target_": "mbrl_flat.cli.commands.os.system", "command": "id"},
        {"inner": [{"_target_": "builtins.eval"}]},
        {"_target_": ["os.system"]},
        {"_target_": "agents.evil.Other"},
        {"env": "os.system"},
        {"model": "subprocess.run"},
        {"perturbations": {"noise": {"wrapper": "subprocess.run", "strengths": [1]}}},
        {"env": "my-module.make"},
        {"_target_": "os.system\n"},
        {"model": "a module.run "},
        {"task": "evil_module:Env-v0"},
        {"task": ["walker-walk", "evil_module:Env-v0"]},
        {"kwargs": {"entry_point": "os:system"}},
        {"kwargs": {"additional_wrappers": [["w", "subprocess:Popen", {}]]}},
        {"kwargs": {"deep": [{"er": "http.server"}]}},
        {"pipeline": "someone/else"},
    ],
)
def test_what_no_installed_configuration_builds_is_refused(read, node):
    with pytest.raises(UserError, match=r"runs code that is not part of mbrl_flat: part\..*trust="):
        read(part=node)


@pytest.mark.parametrize(
    ("trust", "node"),
    [
        ("my_envs", {"_target_": "my_envs.make"}),
        ("my_envs.make", {"_target_": "my_envs.make"}),
        ("my_envs", {"task": "my_envs:Env-v0"}),
    ],
)
def test_what_the_user_trusts_is_taken(read, trust, node):
    assert read(trust=[trust], part=dict(node))["part"] == node
    with pytest.raises(UserError, match="not part of mbrl_flat"):
        read(trust=["my_env"], part=dict(node))


def test_plain_arguments_of_an_environment_are_taken(read):
    given = {"is_slippery": False, "map_name": "8x8", "xml_file": "./a.xml", "ratio": "1.5:2"}
    given |= {"desc": ["SFFF", "FFFG"], "friction": None, "note": "a. b: c"}
    assert read(part={"kwargs": dict(given)})["part"]["kwargs"] == given


def test_a_folder_cannot_trust_itself(read):
    with pytest.raises(UserError, match="not part of mbrl_flat"):
        read(trust=(), part={"_target_": "os.system"}, **{"seed": 1} | {"trust_me": ["os"]})
    assert "trust" not in read(seed=1) | {}


def test_how_a_part_is_built_comes_from_the_installed_configurations(read):
    found = read(part={"_target_": "mbrl_flat.agents.some.Agent", "_args_": [1], "size": 2})
    assert found["part"] == {
        "_target_": "mbrl_flat.agents.some.Agent", "_partial_": True, "size": 2,
    }  # fmt: skip


def test_parts_of_earlier_revisions_are_found_under_their_new_names(read):
    assert read(part={"_target_": "agents.some.Agent"})["part"]["_partial_"] is True
    assert read(names={**NAMES, "arm": "sam"})["names"] == {**NAMES, "variant": "sam"}


@pytest.mark.parametrize("before", ["walker-walk", ".", "runs/old", "/data/x"])
def test_only_paths_follow_a_folder_that_was_moved(read, tmp_path, before):
    found = read(
        run_dir=before, env={"task": "walker-walk"}, probes={"a": {"folder": f"{before}/videos"}}
    )
    assert found["env"] == {"task": "walker-walk"}
    assert found["run_dir"] == str(tmp_path / "run")
    assert found["probes"]["a"]["folder"] == str(tmp_path / "run" / "videos")


@pytest.mark.parametrize("folder", ["/etc", "../other", "runs/old/../../..", "elsewhere"])
def test_nothing_is_written_outside_of_the_run(read, folder):
    with pytest.raises(UserError, match=r"writes outside of its folder: probes\.a\.folder="):
        read(probes={"a": {"folder": folder}})
    assert read(trust=[folder], probes={"a": {"folder": "runs/old/videos"}})


def test_a_value_that_would_be_resolved_is_refused(read):
    with pytest.raises(UserError, match=r"wandb\.project refers to"):
        read(wandb={"project": "${oc.env:SECRET}"})


@pytest.mark.parametrize("text", ["seed: 1", "run_dir: a\nnames: 3", "names: {a: b}"])
def test_settings_that_are_no_run_are_damaged(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        read_saved_config(tmp_path, catalogue=CATALOGUE)


def test_what_a_configuration_of_the_users_own_builds_is_listed():
    settings = {
        "agent": {"_target_": "mbrl_flat.agents.some.Agent"},
        "env": {"_target_": "mine.make", "task": "mine.envs:Env-v0"},
    }
    assert foreign_targets(settings, CATALOGUE) == ["mine.envs", "mine.make"]


FORMER = [
    "agents.actor_critic.ActorCriticConfig", "agents.dreamerv3.agent.dreamerv3",
    "agents.random_agent.RandomAgent", "agents.storm.agent.make", "agents.tdmpc2.agent.TDMPC2",
    "agents.tdmpc2.offline.OfflineTDMPC2", "agents.twister.config.TWISTERConfig",
    "envs.atari.make", "envs.dmc.make", "envs.dummy.make", "envs.gym.make",
    "mbrl_flat.diagnostics.quantities.AdaptiveGap", "mbrl_flat.diagnostics.quantities.WorstGap",
    "mbrl_flat.diagnostics.quantities.AverageGap", "mbrl_flat.diagnostics.quantities.Trace",
    "mbrl_flat.diagnostics.landscape.loss_slice", "mbrl_flat.diagnostics.value_error.value_error",
    "mbrl_flat.hopfield.continual.Stage", "mbrl_flat.optim.methods.sam.sam",
    "mbrl_flat.planning.mppi.MPPIConfig", "mbrl_flat.models.transformer.TransformerConfig",
    "mbrl_flat.supervised.experiments.sam_on.SAMON",
    "mbrl_flat.supervised.experiments.label_noise.LabelNoise",
    "mbrl_flat.supervised.experiments.task.NoisyDigits",
    "mbrl_flat.supervised.experiments.weight_decay_eos.WeightDecayEos",
    "mbrl_flat.supervised.offline.recording.Recording", "torch.optim.Adam",
]  # fmt: skip


@pytest.mark.parametrize("path", FORMER)
def test_everything_that_earlier_runs_built_is_still_built(read, tmp_path, path):
    folder = tmp_path / "run"
    read()
    text = f"run_dir: a\nnames: {{task: t}}\npart: {{_target_: {path}}}\n"
    (folder / "config.yaml").write_text(text)
    settings = read_saved_config(folder, catalogue=commands.catalogue())
    assert settings["part"]["_target_"] in commands.catalogue()
