"""The image: what its files say, and, where buildah is there, what it does.

The test that builds takes a quarter of an hour and several gigabytes: ``pytest -m container``.
Flags that a machine needs to reach its package index, such as ``--volume`` of a pip configuration,
are taken from ``MBRL_FLAT_BUILD_FLAGS``.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.cli import commands as cli

ROOT = Path(cli.__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_base_is_an_argument_and_pinned():
    assert re.search(r"^ARG BASE=\S+:\d+\.\d+\.\d+\S*$", DOCKERFILE, re.MULTILINE)
    assert "FROM ${BASE}" in DOCKERFILE


def test_the_image_runs_as_a_user_and_its_entry_is_the_training_command():
    assert re.search(r"^USER mbrl$", DOCKERFILE, re.MULTILINE)
    assert 'ENTRYPOINT ["mbrl-flat-train"]' in DOCKERFILE
    assert "VOLUME /app/runs" in DOCKERFILE
    assert "MUJOCO_GL=egl" in DOCKERFILE


def test_everything_that_the_wheel_needs_is_copied():
    copied = set(re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", DOCKERFILE, re.MULTILINE))
    named = {word for line in copied for word in line.split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    roots = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert roots | {"configs", "pyproject.toml", "README.md", "LICENSE"} <= named


def test_what_the_image_leaves_out_is_nothing_that_it_copies():
    ignored = (ROOT / ".dockerignore").read_text().split()

    assert not set(ignored) & {"mbrl_flat", "agents", "envs", "configs", "scripts", "LICENSE"}
    assert {".git", "runs", ".venv"} <= set(ignored)


def test_the_sweep_of_the_compose_file_composes():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    line = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", services["sweep"]["command"][0])
    words = shlex.split(line.removeprefix("exec "))

    assert words[:2] == ["mbrl-flat-train", "-m"]
    settings = [word.partition(",")[0] for word in words[2:] if not word.startswith("hydra")]
    GlobalHydra.instance().clear()
    with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        cli.build_run(compose("train", overrides=settings))
    assert services["compare"]["depends_on"]["sweep"]["condition"].endswith("successfully")


@pytest.mark.container
@pytest.mark.timeout(7200)
@pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah")
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot isolation needs root")
def test_the_image_is_built_and_trains(tmp_path):
    script = str(ROOT / "scripts" / "buildah.sh")
    flags = shlex.split(os.environ.get("MBRL_FLAT_BUILD_FLAGS", ""))
    subprocess.run(["sh", script, "build", *flags], cwd=tmp_path, check=True)

    words = ["env.task=cartpole-swingup", "preset=debug", "steps=60", "updates_per_step=0"]
    words += ["eval_every=30", "eval_episodes=1"]
    words += ["threads=1", "progress=false", "optimizer=sam", "run_dir=runs/one"]
    subprocess.run(["sh", script, "run", *words], cwd=tmp_path, check=True)

    folder = tmp_path / "runs" / "one"
    environment = json.loads((folder / "environment.json").read_text())
    lock = hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()
    assert environment["lock_sha256"] == lock
    assert environment["git_revision"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["rho"] == 0.05
    assert (folder / "checkpoints" / "latest.pt").stat().st_uid == 1000
    assert (folder / "plots" / "return.png").is_file()
