"""Make 200 short runs by one sweep and look at what they leave behind.

    python scripts/sweep_200.py [--runs 200] [--workers 2] [--out FOLDER]

While they are made: files open in the sweep's process and its workers. Afterwards: processes that
are still there, folders, and settings that share one. Exit status 1 if anything is not as it ought
to be. Started again with the same ``--out`` it resumes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

SHORT = [
    "agent=random", "env=dummy", "preset=debug", "steps=20", "seed_steps=10", "eval_every=20",
    "eval_episodes=1", "probe_every=0", "log_every=20", "checkpoint_every=0", "device=cpu",
]  # fmt: skip


def main() -> None:
    """Run the sweep and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folder = arguments.out or Path(tempfile.mkdtemp()) / "sweep"
    before = _processes_of(folder)
    status, files = _sweep(arguments, folder)
    time.sleep(2.0)
    left = _processes_of(folder) - before
    seeds = sorted(
        yaml.safe_load(file.read_text())["seed"] for file in folder.glob("*/config.yaml")
    )
    start = max((folder / ".sweep" / "starts").iterdir())
    outcomes = [json.loads(file.read_text())["status"] for file in start.glob("*.json")]
    early, late = files[: len(files) // 4], files[-len(files) // 4 :]
    print(f"exit status {status}; {len(outcomes)} runs: {dict.fromkeys(outcomes)!s:.80}")
    print(f"folders {len(seeds)}, of different seeds {len(set(seeds))}")
    print(f"open files at most: first quarter {max(early)}, last quarter {max(late)}")
    print(f"processes left: {sorted(left) or 'none'}")
    good = seeds == list(range(arguments.runs)) and not left and max(late) <= max(early) + 2
    sys.exit(0 if status == 0 and good else 1)


def _sweep(arguments: argparse.Namespace, folder: Path) -> tuple[int, list[int]]:
    """Its exit status, and the files that were open in its processes, once a second."""
    command = [
        sys.executable, "-c", "from mbrl_flat.cli.main import train; train()", "-m", *SHORT,
        f"seed=range({arguments.runs})", "hydra/launcher=joblib",
        f"hydra.launcher.n_jobs={arguments.workers}", f"run_dir={folder}",
    ]  # fmt: skip
    files = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            files.append(max(map(_open_files, _family(process.pid)), default=0))
            time.sleep(1.0)
    return process.returncode, files


def _family(parent: int) -> list[int]:
    """The sweep's process and its workers; runs come and go and are left out."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )
    return [parent, *map(int, children.stdout.split())]


def _open_files(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def _processes_of(folder: Path) -> set[str]:
    """Processes whose command names the sweep's folder."""
    listed = subprocess.check_output(["ps", "-eo", "pid=,args="], text=True).splitlines()
    mine = str(os.getpid())
    return {line for line in listed if str(folder) in line and line.split()[0] != mine}


if __name__ == "__main__":
    main()
