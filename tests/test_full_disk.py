"""A run on a file system that is full, such as /dev/shm: a small tmpfs of this test alone."""

import json
import os
import subprocess
import sys

import pytest

UNSHARE = ["unshare", "--mount", "--map-root-user"]
CODE = """
import subprocess, sys
from pathlib import Path
from mbrl_flat.cli.main import train
from hydra.core.global_hydra import GlobalHydra

def run(*words):
    GlobalHydra.instance().clear()
    sys.argv = ["mbrl-flat-train", *words]
    try:
        train()
    except SystemExit as stop:
        return stop.code
    return 0

def fill():
    with Path("full/filler").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return

subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "full"], check=True)
words = sys.argv[1:]
fill()
started = run(*words, "steps=60", "run_dir=full/run")
left = sorted(path.name for path in Path("full/run").rglob("*") if path.is_file())
Path("full/filler").unlink()
begun = run(*words, "steps=60", "run_dir=full/run")
fill()
stopped = run("resume=full/run", "steps=80", "progress=false")
Path("full/filler").unlink()
resumed = run("resume=full/run", "steps=80", "progress=false")
Path("metrics.jsonl").write_bytes(Path("full/run/metrics.jsonl").read_bytes())
assert run(*words, "steps=80", "run_dir=whole") == 0
print([started, left, begun, stopped, resumed])
"""
WORDS = [
    "env=dummy", "preset=debug", "progress=false", "threads=1", "device=cpu", "eval_every=0",
    "probe_every=0", "log_every=10", "seed_steps=50", "agent.config.batch_size=2",
    "updates_per_step=0.25",
]  # fmt: skip


@pytest.fixture
def namespace(tmp_path):
    """Runs Python where it may mount, without a trace outside."""
    (tmp_path / "full").mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", "full"]
    try:
        subprocess.run([*UNSHARE, *mount], cwd=tmp_path, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a tmpfs of their own")

    def run(code, *words):
        return subprocess.run(
            [*UNSHARE, sys.executable, "-P", "-c", code, *words], cwd=tmp_path, text=True,
            check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run


def losses(file):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [(row["step"], row["train/total_loss"]) for row in rows if "train/total_loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_a_run_on_a_full_file_system_ends_in_one_message_and_is_resumed_exactly(
    namespace, tmp_path, storage
):
    words = [*WORDS, f"replay_storage={storage}", "replay_capacity=1000"]

    done = namespace(CODE, *words)

    assert done.stdout.splitlines()[-1] == "[2, [], 0, 2, 0]"
    first, second = done.stderr.splitlines()
    assert "No space left on device" in first
    assert "No space left on device" in second
    assert losses(tmp_path / "metrics.jsonl") == losses(tmp_path / "whole" / "metrics.jsonl")
