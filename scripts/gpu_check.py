"""What one GPU says of this project, in at most eight minutes: tests, times and a short run.

    python scripts/gpu_check.py --json gpu.json
    python scripts/gpu_check.py --device cpu --preset debug --steps 130 --no-tests --json cpu.json

It runs the tests marked ``gpu``; times update and action of all agents at the preset's size, eager,
compiled, with CUDA graphs and in bfloat16, under Adam and SAM; and trains TD-MPC2 for a while. What
fails or no longer fits into the time is named in the report and stops nothing else.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mbrl_flat.cli.main import compose_run
from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import Agent
from mbrl_flat.runs.parts import build_agent
from mbrl_flat.runtime.device import choose_device
from mbrl_flat.specs import Continuous, Discrete, EnvSpec

SPECS = {
    "state": EnvSpec(obs={"state": (24,)}, action=Continuous(dim=6), episode_length=500),
    "image": EnvSpec(
        obs={"image": (3, 64, 64)},
        action=Discrete(num=6),
        episode_length=27_000,
        images=frozenset({"image"}),
    ),
}
IMAGINATION = {
    "eager": (),
    "compiled": ("compile=true",),
    "bfloat16": ("agent.config.imagination.precision=bfloat16",),
}
VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "tdmpc2": {
        "eager": (),
        "compiled": ("compile=true",),
        "CUDA graphs": ("compile=true", "agent.config.cuda_graphs=true"),
        "bfloat16 plans": ("agent.config.planner_dtype=bfloat16",),
    },
    "dreamerv3": IMAGINATION,
    "storm": IMAGINATION,
    "twister": IMAGINATION,
}
OPTIMIZERS = ("adam", "sam")


def main() -> None:
    """Check, print and write the report."""
    arguments = _arguments()
    end = time.monotonic() + arguments.seconds
    device = choose_device(arguments.device)
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else str(device),
        "torch": torch.__version__,
        "preset": arguments.preset,
        "tests": "left out" if arguments.no_tests else _tests(end),
        "run": _run(device, arguments),
        "rows": [],
    }
    for agent, variants in VARIANTS.items():
        for variant, overrides in variants.items():
            if variant == "CUDA graphs" and device.type != "cuda":
                continue
            for optimizer in OPTIMIZERS if variant == "eager" else OPTIMIZERS[:1]:
                settings = (f"agent={agent}", f"optimizer={optimizer}", *overrides)
                row = {"agent": agent, "variant": variant, "optimizer": optimizer}
                report["rows"].append(row | _timed(settings, device, arguments, end))
    report["table"] = table(report)
    print(report["table"])
    Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--steps", type=int, default=2_000, help="of the run")
    parser.add_argument("--rounds", type=int, default=10, help="of each measurement")
    parser.add_argument("--seconds", type=float, default=480.0, help="for everything")
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--json", default="gpu_check.json")
    return parser.parse_args()


def _tests(end: float) -> str:
    """Last line of the tests that are meant for a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
    root = Path(__file__).parents[1]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=False,
            timeout=max(1.0, (end - time.monotonic()) / 3.0),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "out of time"
    return (done.stdout.strip().splitlines() or ["no output"])[-1]


def _run(device: torch.device, arguments: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of a run of TD-MPC2, and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-c", "from mbrl_flat.cli.main import train; train()", "env=dummy",
            f"preset={arguments.preset}", f"steps={arguments.steps}", f"device={device}",
            "eval_every=0", "probe_every=0", "progress=false", f"run_dir={folder}/run",
        ]  # fmt: skip
        start = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=arguments.seconds / 3
            )
        except subprocess.TimeoutExpired:
            return {"status": "out of time"}
    rate = arguments.steps / (time.monotonic() - start)
    if done.returncode:
        return {"status": (done.stderr.strip().splitlines() or ["failed"])[-1]}
    return {"status": "finished", "steps_per_second": rate}


def _timed(
    settings: tuple[str, ...], device: torch.device, arguments: argparse.Namespace, end: float
) -> dict[str, Any]:
    """Median milliseconds of an update and an action; or why there are none."""
    if time.monotonic() > end:
        return {"error": "out of time"}
    kind = "state" if settings[0] == "agent=tdmpc2" else "image"
    env = "env=dmc" if kind == "state" else "env=atari"
    try:
        config, parts = compose_run(*settings, f"preset={arguments.preset}", env)
        agent = build_agent(config, parts, SPECS[kind], device)
        tasks = _tasks(agent, device)
        return {name: _median(task, device, arguments.rounds, end) for name, task in tasks.items()}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _tasks(agent: Agent, device: torch.device) -> dict[str, Callable[[], object]]:
    """An update on a random batch, and one action."""
    generator = torch.Generator().manual_seed(0)
    num, length, spec = agent.batch_size, agent.sequence_length, agent.spec  # pyright: ignore[reportAttributeAccessIssue]
    (name, shape), size = next(iter(spec.obs.items())), spec.action.size
    whole = (num, length + 1, *shape)
    if name == "image":
        obs = torch.randint(0, 256, whole, generator=generator, dtype=torch.uint8)
    else:
        obs = torch.randn(whole, generator=generator)
    batch = Batch(
        obs={name: obs},
        action=torch.eye(size)[torch.randint(size, (num, length), generator=generator)],
        reward=torch.randn(num, length, generator=generator),
        terminated=torch.zeros(num, length),
        is_first=torch.zeros(num, length + 1, dtype=torch.bool),
    )
    seen, state = {name: obs[:1, 0]}, agent.initial_state(1)
    stream = torch.Generator(device).manual_seed(0)
    return {
        "update_ms": lambda: agent.update(batch),
        "act_ms": lambda: agent.act(seen, state, mode="explore", generator=stream),
    }


def _median(task: Callable[[], object], device: torch.device, rounds: int, end: float) -> float:
    times: list[float] = []
    for number in range(rounds + 2):
        start = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize()
        # The first two warm up: they compile and record.
        if number >= 2:
            times.append(1e3 * (time.perf_counter() - start))
        if times and time.monotonic() > end:
            break
    return statistics.median(times)


def table(report: dict[str, Any]) -> str:
    """The report's figures as Markdown, in the columns of ``docs/reference/speed.md``."""
    lines = [
        f"{report['device']}, torch {report['torch']}, preset={report['preset']}",
        "",
        "| agent | variant | optimizer | update, ms | act, ms |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        figures = (
            [row["error"], ""]
            if "error" in row
            else [f"{row['update_ms']:.2f}", f"{row['act_ms']:.2f}"]
        )
        lines.append(
            f"| {row['agent']} | {row['variant']} | {row['optimizer']} | {' | '.join(figures)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
