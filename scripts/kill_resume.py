"""Kill a run at random moments, resume it each time, and compare it with one never killed.

    python scripts/kill_resume.py --kills 20 --optimizer sam

Both runs are ``preset=debug`` on the CPU with one thread. The comparison is exact: every line of
``metrics.jsonl`` but its times, and every weight. Exit status 1 if anything differs, or if fewer
than half of the kills came after a new checkpoint: then little was resumed, and nothing is shown.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from same_run import differences

from mbrl_flat.training.checkpoint import load_safely

START_SECONDS = 6.0
"""What importing and building may take on a busy machine."""


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--optimizer", default="sam")
    parser.add_argument("--task", default="cartpole-swingup")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.kills < 1:
        parser.error(f"--kills must be at least 1, got {arguments.kills}: no kill shows nothing.")
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        command = _command(arguments)
        seconds = _run([*command, f"run_dir={whole}"])
        print(f"the run that is never killed took {seconds:.1f} s")
        kills, useful = _run_with_kills(command, killed, arguments, seconds)
        problems = differences(whole, killed)
    print(f"{kills} kills of the {arguments.optimizer} run; differences: {problems or 'none'}")
    print(f"{useful} of the kills came after a new checkpoint")
    sys.exit(1 if problems or kills < arguments.kills or 2 * useful < kills else 0)


def _command(arguments: argparse.Namespace) -> list[str]:
    return [
        sys.executable, "-c", "from mbrl_flat.cli.main import train; train()",
        "preset=debug", f"env.task={arguments.task}", "env.action_repeat=8",
        f"optimizer={arguments.optimizer}",
        f"seed={arguments.seed}", f"steps={arguments.steps}", "seed_steps=200", "threads=1",
        "eval_every=400", "probe_every=100", "checkpoint_every=25", "log_every=50",
        "progress=false", "device=cpu",
    ]  # fmt: skip


def _run(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _run_with_kills(
    command: list[str], folder: Path, arguments: argparse.Namespace, seconds: float
) -> tuple[int, int]:
    """Kill ``arguments.kills`` times, then let it finish; count kills and those that lost work."""
    rng = random.Random(arguments.seed)
    kills, useful, before = 0, 0, None
    while True:
        exists = (folder / "config.yaml").exists()
        launch = [*command[:3], f"resume={folder}", "progress=false"] if exists else [
            *command, f"run_dir={folder}"
        ]  # fmt: skip
        process = subprocess.Popen(launch, stdout=subprocess.DEVNULL)
        # Some kills fall into the start, most into acting, learning, measuring and saving. On a
        # busy machine the start takes longer: three of four wait for a new checkpoint.
        if kills % 4 and kills < arguments.kills:
            _wait_for_checkpoint(process, folder, before)
            wait = rng.uniform(0.0, seconds / arguments.kills)
        else:
            wait = rng.uniform(1.0, START_SECONDS + seconds / arguments.kills)
        try:
            status = process.wait(wait if kills < arguments.kills else None)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            step = _step_of(folder)
            useful += step is not None and step != before
            before = step
            print(f"kill {kills:2} after {wait:4.1f} s, newest checkpoint at step {step}")
            continue
        if status:
            print(f"the resumed run ended with status {status}")
        return kills, useful


def _wait_for_checkpoint(
    process: subprocess.Popen[bytes], folder: Path, before: int | None
) -> None:
    while process.poll() is None and _step_of(folder) in (before, None):
        time.sleep(0.2)


def _step_of(folder: Path) -> int | None:
    """Step of the newest checkpoint, which must be whole if it is there."""
    latest = folder / "checkpoints" / "latest.pt"
    return int(load_safely(latest)["step"]) if latest.exists() else None


if __name__ == "__main__":
    main()
