"""The experiments on the published comparison, run by their debug preset."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from mbrl_flat.cli import commands as cli

QUIET = ["progress=false", "threads=1", "device=cpu", "preset=debug"]


def run(monkeypatch, folder: Path, *words: str) -> tuple[dict, list[dict]]:
    """Settings and rows of a run."""
    GlobalHydra.instance().clear()
    command = ["mbrl-flat-train", *QUIET, *words, f"run_dir={folder}"]
    monkeypatch.setattr(sys, "argv", command)
    cli.train()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return yaml.safe_load((folder / "config.yaml").read_text()), rows


def swept(experiment: str, *words: str) -> dict[str, list[str]]:
    """What the experiment's sweep goes through, key by key."""
    GlobalHydra.instance().clear()
    with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        overrides = [f"experiment={experiment}", *words]
        cfg = compose("train", overrides=overrides, return_hydra_config=True)
    return {key: str(values).split(",") for key, values in cfg.hydra.sweeper.params.items()}


@pytest.mark.parametrize("variant", swept("published_recipe", "preset=debug")["+variant"])
def test_the_debug_preset_runs_the_published_recipe(monkeypatch, tmp_path, variant):
    settings, rows = run(
        monkeypatch, tmp_path / "run", "experiment=published_recipe", f"+variant={variant}"
    )

    optimizer, agent = settings["optimizer"], settings["agent"]["config"]
    assert optimizer["_target_"].endswith("SAMAsPublished")
    assert (optimizer["only"], optimizer["clip_scope"]) == (["encoder", "dynamics"], "module")
    assert optimizer["same_rng"] is False
    assert (agent["reward_coef"], agent["value_coef"]) == (0.3, 0.3)
    assert agent["policy_latents"] == "encoded"
    assert [row["step"] for row in rows if "eval/return_mean" in row] == [0, 30, 60]
    trained = [row for row in rows if "optim/evaluations" in row]
    assert {row["optim/evaluations"] for row in trained} == {2.0}
    rho = 1e-8 if variant == "published_tiny" else 1e-2
    assert trained[-1]["optim/perturbation_norm"] == pytest.approx(rho, rel=1e-3)


@pytest.mark.parametrize("benchmark", swept("central_claim_full", "preset=debug")["benchmark"])
def test_the_debug_preset_of_the_full_comparison_runs_both_agents(monkeypatch, tmp_path, benchmark):
    words = ["experiment=central_claim_full", f"benchmark={benchmark}"]
    variant = "+variant=sam_encoder_dynamics"

    settings, rows = run(monkeypatch, tmp_path / "run", *words, variant)

    agent = "twister" if benchmark.startswith("atari") else "tdmpc2"
    assert settings["agent"]["_target_"].split(".")[2] == agent
    assert settings["optimizer"]["only"] == ["encoder", "dynamics"]
    assert [row["step"] for row in rows if "eval/return_mean" in row] == [0, 60]
    assert {row["optim/evaluations"] for row in rows if "optim/evaluations" in row} == {2.0}


@pytest.mark.parametrize("experiment", ["published_recipe", "central_claim_full", "speed_levers"])
def test_seeds_are_outermost_and_every_value_of_the_sweep_composes(experiment):
    params = swept(experiment)

    assert next(iter(params)) == "seed"
    for key in params.keys() - {"seed"}:
        for value in params[key]:
            assert swept(experiment, f"{key}={value}")


@pytest.mark.parametrize(
    ("variant", "control", "setting"),
    [
        ("sam_half_batch", "sam", ("optimizer", "ascent_fraction", 0.5)),
        ("sam_bfloat16", "sam", ("optimizer", "ascent_precision", "bfloat16")),
        ("adam_bfloat16_plans", "adam", ("agent", "config.planner_dtype", "bfloat16")),
    ],
)
def test_a_variant_that_saves_time_differs_from_its_control_by_one_setting(
    variant, control, setting
):
    GlobalHydra.instance().clear()
    with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        ours, theirs = (
            compose("train", overrides=["experiment=speed_levers", f"+variant={name}"])
            for name in (variant, control)
        )
    group, name, value = setting

    OmegaConf.set_struct(theirs, False)
    OmegaConf.update(theirs[group], name, value)
    assert OmegaConf.to_container(ours) == OmegaConf.to_container(theirs)
