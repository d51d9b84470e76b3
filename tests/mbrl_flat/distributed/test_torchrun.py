"""Whole runs over two processes, as ``torchrun`` starts them from a shell."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mbrl_flat.training.checkpoint import load_safely

COMMAND = Path(sys.executable).with_name("mbrl-flat-train")
SMALL = [
    "env=dummy", "preset=debug", "device=cpu", "threads=1", "progress=false", "probe_every=0",
    "optimizer=sam", "eval_every=100", "log_every=50", "checkpoint_every=50",
]  # fmt: skip
LOST = "Another process of this run has ended"
SECONDS = 900
"""Patience with a machine that does other things too."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * SECONDS)]


def start(folder, *arguments, processes=2):
    """Start a run in a group of its own; its output goes to ``output`` in the folder."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command = [*launcher, "--no-python", str(COMMAND)] if processes > 1 else [str(COMMAND)]
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            process_group=0,
        )


def finish(folder, *arguments, processes=2, status=0):
    started = start(folder, *arguments, processes=processes)
    try:
        started.wait(SECONDS)
    finally:
        end(started)
    output = (folder / "output").read_text()
    assert started.returncode == status, output
    return output


def end(started):
    for number in [started.pid, *members(started).values()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    started.wait(30)


def members(started):
    """Process numbers by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            variables = (path / "environ").read_bytes().split(b"\0")
            ranks = [word for word in variables if word.startswith(b"RANK=")]
            if parent == started.pid and ranks:
                found[int(ranks[0].removeprefix(b"RANK="))] = int(path.name)
    return found


def wait_for_step(folder, step, started):
    file = folder / "metrics.jsonl"
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        rows = file.read_text().splitlines() if file.exists() else []
        if any(json.loads(row)["step"] >= step for row in rows if row.endswith("}")):
            return
        assert started.poll() is None, (folder.parent / "output").read_text()
        time.sleep(0.2)
    raise AssertionError("the run does not come along")


def rows(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k != "time" and not k.startswith("time/")}
        for line in lines
    ]


def agent(folder):
    return load_safely(folder / "checkpoints" / "latest.pt")["agent"]


def test_a_run_over_two_processes_is_the_run_of_one(tmp_path):
    """In float32: what differs is rounding, a ten-thousandth of a loss after 100 updates."""
    one = finish(tmp_path, *SMALL, "steps=200", "run_dir=one", processes=1)
    two = finish(tmp_path, *SMALL, "steps=200", "run_dir=two")

    assert one.count("\nfolder ") == two.count("\nfolder ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "output", "two"]
    expected, got = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row.keys() for row in got] == [row.keys() for row in expected]
    for ours, theirs in zip(got, expected, strict=True):
        for name in theirs:
            if name.startswith(("train/", "optim/")):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4), name


def test_one_that_dies_ends_the_others_with_a_sentence_and_the_run_goes_on_exactly(tmp_path):
    finish(tmp_path, *SMALL, "steps=400", "run_dir=whole")
    started = start(tmp_path, *SMALL, "steps=400", "run_dir=cut")
    try:
        wait_for_step(tmp_path / "cut", 150, started)
        os.kill(members(started)[1], signal.SIGKILL)
        assert started.wait(60) != 0
    finally:
        end(started)
    output = (tmp_path / "output").read_text()
    assert output.count(LOST) == 1
    assert load_safely(tmp_path / "cut" / "checkpoints" / "latest.pt")["step"] < 400

    finish(tmp_path, "resume=cut")

    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    whole = agent(tmp_path / "whole")["model"]
    assert all(
        torch.equal(value, whole[name]) for name, value in agent(tmp_path / "cut")["model"].items()
    )


def test_a_wrong_word_is_said_once(tmp_path):
    output = finish(tmp_path, *SMALL, "sed=3", status=1)

    assert output.count("Unknown key 'sed'") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_what_only_the_first_process_can_find_out_dismisses_the_others(tmp_path):
    output = finish(tmp_path, *SMALL, "agent.config.batch_size=33", "run_dir=r", status=1)

    assert output.count("batch_size=33 cannot be split into 2 equal parts") == 1
    assert LOST not in output


def test_a_signal_saves_the_run_once_and_ends_all_processes(tmp_path):
    started = start(tmp_path, *SMALL, "steps=100000", "eval_every=0", "run_dir=r")
    try:
        wait_for_step(tmp_path / "r", 150, started)
        numbers = members(started)
        os.kill(started.pid, signal.SIGTERM)
        assert started.wait(90) != 0
    finally:
        end(started)

    assert sorted(numbers) == [0, 1]
    assert not any(Path(f"/proc/{number}").exists() for number in numbers.values())
    saved = load_safely(tmp_path / "r" / "checkpoints" / "latest.pt")["step"]
    assert saved >= 150
    assert LOST not in (tmp_path / "output").read_text()
