"""Sweeps as a user starts them, with runs that are killed in the middle.

The marker ``cluster`` needs more: a SLURM (``scripts/slurm_here.sh start FOLDER``, and
``SLURM_CONF`` set) or ray (``pip install -e '.[ray]'``).
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.cli import main as cli
from mbrl_flat.compare.main import main as compare
from mbrl_flat.sweeps import run_name
from mbrl_flat.training.checkpoint import load_safely

COMMAND = "from mbrl_flat.cli.main import train; train()"
# Words without the launcher's: they name the runs.
RUN = [
    "env=dummy", "preset=debug", "steps=80", "seed_steps=60", "eval_every=80", "eval_episodes=1",
    "probe_every=0", "checkpoint_every=10", "log_every=20", "device=cpu", "threads=1",
]  # fmt: skip
SECONDS = 1500
"""Patience with a machine that does other things too."""


@pytest.fixture
def start(tmp_path):
    """Start a sweep in ``tmp_path/s``; whatever is left of it at the end is killed."""
    processes = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "-m", *RUN, "run_dir=s", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    output, _ = process.communicate(timeout=SECONDS)
    sys.stdout.write(output)  # shown if the test fails, or with -s
    return process.returncode, output.splitlines()


def folder_of(tmp_path: Path, *overrides: str) -> Path:
    return tmp_path / "s" / run_name([*RUN, *overrides])


def outcome_amid(folder: Path) -> dict[str, str]:
    """Wait until a run is under way and give what its job has written about it."""
    until = time.monotonic() + SECONDS
    metrics = folder / "metrics.jsonl"
    while not (metrics.is_file() and '"step": 40' in metrics.read_text()):
        assert time.monotonic() < until, f"{folder} did not begin"
        time.sleep(0.01)
    files = (folder.parent / ".sweep" / "starts").glob(f"*/{folder.name}.json")
    return json.loads(max(files).read_text())


def is_undisturbed(folder: Path, monkeypatch, *overrides: str) -> bool:
    """Whether the weights are bit for bit those of a run of these settings on its own."""
    GlobalHydra.instance().clear()
    whole = folder.parent.parent / f"whole_{folder.name}"
    monkeypatch.setattr(
        "sys.argv", ["train", *RUN, *overrides, "progress=false", f"run_dir={whole}"]
    )
    cli.train()
    agents = [load_safely(f / "checkpoints" / "latest.pt")["agent"] for f in (whole, folder)]
    return same(*agents)


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_a_second_start_completes_what_was_killed_in_the_first(start, tmp_path, monkeypatch):
    words = ["optimizer=adam,sam", "seed=1,2,3,4,5,6", "hydra/launcher=joblib"]
    words.append("hydra.launcher.n_jobs=2")
    killed = [("optimizer=adam", "seed=2"), ("optimizer=sam", "seed=3")]

    first = start(*words)
    for overrides in killed:
        os.kill(int(outcome_amid(folder_of(tmp_path, *overrides))["pid"]), signal.SIGKILL)
    status, lines = ended(first)
    assert status == 1
    assert "12 runs: 2 failed, 10 finished" in lines
    reasons = [line for line in lines if line.startswith("  ") and "killed by SIGKILL" in line]
    assert [any(run_name([*RUN, *o]) in line for line in reasons) for o in killed] == [True, True]

    status, lines = ended(start(*words))
    assert status == 0
    assert "12 runs: 2 finished, 10 finished before" in lines
    for overrides in killed:
        assert is_undisturbed(folder_of(tmp_path, *overrides), monkeypatch, *overrides)

    assert compare([str(tmp_path / "s"), "--out", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(
        run_name([*RUN, f"optimizer={o}", f"seed={s}"]) in page
        for o in ("adam", "sam")
        for s in range(1, 7)
    )


DAEMON = """#!/bin/bash
# As those of SLURM: at SIGTERM the file of its number goes at once, the process a while later.
[ "$1" != -V ] || { echo slurm-wlm 22.05.8; exit; }
file=${SLURM_CONF%/*}/${0##*/}.pid
run() {
    trap 'rm "$file"; sleep 0.4; exit' TERM
    echo $BASHPID > "$file"
    while :; do sleep 0.1; done
}
run > /dev/null 2>&1 &
until [ -s "$file" ]; do sleep 0.1; done
"""


@pytest.fixture
def slurm_here(tmp_path):
    """The script, with programs that look like those of SLURM, on a node in ``tmp_path/node``."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("munged", "slurmctld", "slurmd", "sbatch", "sinfo"):
        code = DAEMON if name.endswith("d") else "#!/bin/bash\necho idle\n"
        (programs / name).write_text(code)
        (programs / name).chmod(0o755)
    script = Path(cli.__file__).parents[2] / "scripts" / "slurm_here.sh"
    path = f"{programs}:{os.environ['PATH']}"

    def do(action: str, **variables: str) -> None:
        environment = {**os.environ, "PATH": path, **variables}
        subprocess.run([script, action, tmp_path / "node"], env=environment, check=True, timeout=60)

    yield do
    do("stop")


@pytest.mark.parametrize("threads", ["1", "1000"])
def test_a_slurm_of_this_machine_has_its_cores_whatever_threads_runs_are_given(
    slurm_here, tmp_path, threads
):
    slurm_here("start", OMP_NUM_THREADS=threads)

    node = (tmp_path / "node" / "slurm.conf").read_text()
    assert f" CPUs={len(os.sched_getaffinity(0))} " in node


def test_a_slurm_of_this_machine_that_was_stopped_is_gone_and_can_be_started_again(
    slurm_here, tmp_path
):
    def running():
        return {file.stem: int(file.read_text()) for file in (tmp_path / "node").glob("*.pid")}

    def is_alive(pid):
        status = Path(f"/proc/{pid}/status")
        return status.exists() and "State:\tZ" not in status.read_text()

    slurm_here("start")
    first = running()
    slurm_here("stop")
    assert [name for name, pid in first.items() if is_alive(pid)] == []

    slurm_here("start")
    second = running()
    assert set(second) == set(first) == {"munged", "slurmctld", "slurmd"}
    assert all(map(is_alive, second.values()))


@pytest.fixture
def slurm():
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], check=False).returncode != 0:
        pytest.skip("no SLURM answers")


@pytest.mark.cluster
@pytest.mark.timeout(2 * SECONDS)
def test_a_job_that_slurm_requeues_finishes_exactly(slurm, start, tmp_path, monkeypatch):
    overrides = ("optimizer=sam", "seed=1")
    process = start("optimizer=sam,adam", "seed=1,2,3", "hydra/launcher=submitit_slurm")
    job = outcome_amid(folder_of(tmp_path, *overrides))["job"]
    subprocess.run(["scontrol", "requeue", job], check=True)

    status, lines = ended(process)
    assert status == 0
    assert "6 runs: 6 finished" in lines
    shown = subprocess.check_output(["scontrol", "show", "job", job], text=True)
    assert "Restarts=1" in shown
    assert is_undisturbed(folder_of(tmp_path, *overrides), monkeypatch, *overrides)


@pytest.fixture
def ray_of_two_nodes():
    """Head and second node, each with one core; their address."""
    # The paths of its sockets may have 107 letters, and those of tests are long.
    folder = tempfile.mkdtemp(prefix="ray")
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    address = "127.0.0.1:6399"
    common = ["--num-cpus=1", "--disable-usage-stats", "--object-store-memory=80000000"]
    common.append("--node-ip-address=127.0.0.1")
    head = [
        "start",
        "--head",
        "--port=6399",
        "--include-dashboard=false",
        f"--temp-dir={folder}",
    ]
    subprocess.run([*ray, *head, *common], check=True)
    subprocess.run([*ray, "start", f"--address={address}", *common], check=True)
    yield address
    subprocess.run([*ray, "stop"], check=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.cluster
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no ray")
def test_a_run_that_is_killed_on_a_ray_cluster_is_completed_by_a_second_start(
    start, tmp_path, monkeypatch, ray_of_two_nodes
):
    words = ["optimizer=adam,sam", "seed=1,2,3", "hydra/launcher=ray_cluster"]
    words.append(f"hydra.launcher.ray.init.address='{ray_of_two_nodes}'")
    overrides = ("optimizer=adam", "seed=2")
    process = start(*words)
    os.kill(int(outcome_amid(folder_of(tmp_path, *overrides))["pid"]), signal.SIGKILL)
    status, lines = ended(process)
    assert status == 1
    assert "6 runs: 1 failed, 5 finished" in lines

    status, lines = ended(start(*words))
    assert status == 0
    assert "6 runs: 1 finished, 5 finished before" in lines
    assert is_undisturbed(folder_of(tmp_path, *overrides), monkeypatch, *overrides)
