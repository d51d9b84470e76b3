"""How long one update, act, sample and environment step of TD-MPC2 take, and how much memory.

Published sizes, batch 256, horizon 3, 512 samples. Every figure comes from one process that takes
the measured things in turn, so that what else the machine does falls on all of them alike; the
warm-up is not counted. Wall time and the process's CPU time are both given: on a busy machine
only the second means something, and only with one thread.

    python scripts/bench.py --threads 2 --json bench.json
    python scripts/bench.py --threads 1 --sizes 1,5 --tasks walker-walk,dog-run --memory
    python scripts/bench.py --threads 1 --sizes cpu,5 --peer ../tdmpc2 --peer-compile 5 --docs PAGE

``--sizes cpu`` is ``preset=cpu``; ``--peer`` takes a checkout of the official code into the run,
``--peer-compile`` also as it compiles itself, which takes minutes.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_peer import official
from bench_tables import end_to_end, relate, write_table

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.data.replay import Replay
from mbrl_flat.envs.dmc import make
from mbrl_flat.interfaces import AgentState
from mbrl_flat.models import kernels
from mbrl_flat.optim import make_optimizer
from mbrl_flat.planning.mppi import MPPIConfig
from mbrl_flat.runtime.allocator import keep_freed_memory
from mbrl_flat.runtime.device import choose_device, multiplies_bfloat16
from mbrl_flat.runtime.seeding import seed_everything
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.training.meters import rss_bytes

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"lr": 3e-4},
    "sam": {"lr": 3e-4, "rho": 0.01},
    "sam only=[encoder,dynamics]": {"lr": 3e-4, "rho": 0.01, "only": ["encoder", "dynamics"]},
    "msam": {"lr": 3e-4},
    "ivon": {},
}
SHAPES = {"walker-walk": (24, 6), "dog-run": (223, 38)}
"""Sizes of observation and action."""
CPU_PRESET: dict[str, Any] = {
    "batch_size": 128,
    "planner": MPPIConfig(num_samples=128, num_prior=8, num_elites=16, iterations=4),
}
WARM_UP, SLOW_MS = 2, 2000.0
"""Rounds that are not counted; and what takes longer than this is measured twice and no more."""
Task = Callable[[], object]


def main() -> None:
    """Measure and print one table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    device = choose_device(arguments.device)
    settings = [(t, s) for t in arguments.tasks.split(",") for s in arguments.sizes.split(",")]
    if arguments.only_memory:
        print(_peak_megabytes(*settings[0], device))
        return
    tasks = {
        (task, size, name): run
        for task, size in settings
        for name, run in _tasks(task, size, device, wide=arguments.states).items()
    }
    if arguments.peer:
        tasks |= _peers(settings, Path(arguments.peer), compile=False)
        sizes = arguments.peer_compile.split(",")
        compiled = [(task, size) for task, size in settings if size in sizes]
        tasks |= _peers(compiled, Path(arguments.peer), compile=True)
    if arguments.names:
        named = ["", "official ", "compiled official "]
        kept = {f"{peer}{n}" for peer in named for n in arguments.names.split(",")}
        tasks = {key: run for key, run in tasks.items() if key[2] in kept}
    rows = _measure(tasks, arguments.rounds, device)
    for row in rows:
        row |= {"threads": arguments.threads, "device": str(device)}
        relate(row, rows)
    rows += [] if arguments.names else end_to_end(settings, rows)
    report: dict[str, Any] = {
        "rows": rows,
        "peak_memory_mb": _memory(settings, arguments) if arguments.memory else {},
        "machine": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": multiplies_bfloat16(device),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    _print(report)
    if arguments.docs:
        write_table(report, Path(arguments.docs))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sizes", default="5", help="of the model, in millions, with commas")
    parser.add_argument("--tasks", default="walker-walk", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--names", default="", help="measure these alone, such as 'act,update'")
    parser.add_argument("--states", type=int, default=8, help="planned for at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", default=None)
    parser.add_argument("--peer", default=None, help="a checkout of the official TD-MPC2")
    parser.add_argument("--peer-compile", default="", help="sizes that it also compiles itself for")
    parser.add_argument("--docs", default=None, help="a page whose table of figures is written")
    parser.add_argument("--memory", action="store_true", help="also the peak memory, alone")
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _peers(
    settings: list[tuple[str, str]], checkout: Path, *, compile: bool
) -> dict[tuple[str, str, str], Task]:
    """The official code at the sizes that it has; nothing where it cannot be imported."""
    out: dict[tuple[str, str, str], Task] = {}
    folder = Path(tempfile.mkdtemp(prefix="official-tdmpc2-"))
    for task, size in settings:
        obs, action = SHAPES[task]
        if not size.isdigit():
            continue
        shapes = [(4, 256, obs), (3, 256, action), (3, 256, 1)]
        batch = (*(torch.randn(shape) for shape in shapes), torch.zeros(3, 256, 1))
        try:
            found = official(
                checkout, folder, obs=obs, action=action, size=int(size), batch=batch,
                compile=compile,
            )  # fmt: skip
        except ImportError as error:
            sys.stderr.write(f"the official code is left out: {error}\n")
            return {}
        title = "compiled official" if compile else "official"
        out |= {(task, size, f"{title} {name}"): run for name, run in found.items()}
    return out


def _spec(task: str) -> EnvSpec:
    obs, action = SHAPES[task]
    return EnvSpec(
        obs={"state": (obs,)}, action=Continuous(dim=action), episode_length=500, action_repeat=2
    )


def _agent(optimizer: str, spec: EnvSpec, device: torch.device, size: str, **more: Any) -> TDMPC2:
    seed_everything(0)
    name = optimizer.split(maxsplit=1)[0]

    def factory(groups: Any, *, max_grad_norm: float | None = None) -> Any:
        return make_optimizer(name, groups, max_grad_norm=max_grad_norm, **OPTIMIZERS[optimizer])

    config = TDMPC2Config(size=size, **(CPU_PRESET if size == "cpu" else {}), **more)
    return TDMPC2(spec, config=config, optimizer=factory, device=device)


def _act(agent: TDMPC2, num: int, *, at_once: bool = True) -> Task:
    """Plan for ``num`` states, in one call or one by one."""
    obs, state = {"state": torch.randn(num, *agent.spec.obs["state"])}, agent.initial_state(num)
    generator = torch.Generator(agent.device).manual_seed(0)
    rows = [slice(0, num)] if at_once else [slice(i, i + 1) for i in range(num)]

    def cut(values: AgentState, row: slice) -> AgentState:
        return {name: value[row] for name, value in values.items()}

    def task() -> None:
        for row in rows:
            agent.act(cut(obs, row), cut(state, row), mode="explore", generator=generator)

    return task


def _tasks(task: str, size: str, device: torch.device, *, wide: int) -> dict[str, Task]:
    """What is measured, ready to be called."""
    spec = _spec(task)
    replay = _filled_replay(spec)
    rng = np.random.default_rng(0)
    batch = replay.sample(128 if size == "cpu" else 256, 3, rng=rng)
    full = (task, size) in (("walker-walk", "5"), ("walker-walk", "cpu"))
    agents = {
        name: _agent(name, spec, device, size) for name in OPTIMIZERS if full or name == "adam"
    }
    tasks: dict[str, Task] = {
        f"update {name}": lambda agent=agent: agent.update(batch) for name, agent in agents.items()
    }
    tasks["act"] = _act(agents["adam"], 1)
    if device.type == "cpu" and kernels.library() is not None:
        for name in ("update adam", "act"):
            tasks[f"{name}, without fused operators"] = _unfused(tasks[name])
    if multiplies_bfloat16(device):
        short = _agent("adam", spec, device, size, planner_dtype="bfloat16")
        tasks["act bfloat16"] = _act(short, 1)
    if full and wide > 1:
        tasks[f"act, {wide} states at once"] = _act(agents["adam"], wide)
        tasks[f"act, {wide} states one by one"] = _act(agents["adam"], wide, at_once=False)
    tasks["sample"] = lambda: replay.sample(256, 3, rng=rng)
    env = make(task, seed=0)
    env.reset()
    action = np.zeros(spec.action.size, np.float32)
    tasks["environment step"] = lambda: env.step(action)
    return tasks


def _unfused(task: Task) -> Task:
    """The same with torch's operators alone."""

    def run() -> None:
        usable = kernels.library
        kernels.library = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
        try:
            task()
        finally:
            kernels.library = usable

    return run


def _peak_megabytes(task: str, size: str, device: torch.device) -> float:
    """Peak megabytes of a process with one agent under Adam, after five updates and actions."""
    spec = _spec(task)
    batch = _filled_replay(spec).sample(256, 3, rng=np.random.default_rng(0))
    agent = _agent("adam", spec, device, size)
    act = _act(agent, 1)
    for _ in range(5):
        agent.update(batch)
        act()
    return rss_bytes() / 1e6


def _memory(settings: list[tuple[str, str]], arguments: argparse.Namespace) -> dict[str, float]:
    """Peak megabytes of a process of its own for each task and size."""
    peaks: dict[str, float] = {}
    for task, size in settings:
        command = [
            sys.executable, __file__, "--threads", str(arguments.threads), "--tasks", task,
            "--sizes", size, "--device", arguments.device, "--only-memory",
        ]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[f"{task}, {size}M"] = float(done.stdout)
    return peaks


def _filled_replay(spec: EnvSpec) -> Replay:
    replay = Replay(spec, 2_000)
    rng = np.random.default_rng(0)
    for _ in range(4):
        replay.begin(0, {"state": rng.normal(size=spec.obs["state"])})
        for step in range(spec.episode_length):
            replay.add(
                0,
                rng.uniform(-1, 1, spec.action.size),
                float(rng.uniform()),
                {"state": rng.normal(size=spec.obs["state"])},
                terminated=False,
                done=step == spec.episode_length - 1,
            )
    return replay


def _measure(
    tasks: dict[tuple[str, str, str], Task], rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    wall: dict[tuple[str, str, str], list[float]] = {key: [] for key in tasks}
    cpu: dict[tuple[str, str, str], list[float]] = {key: [] for key in tasks}
    for number in range(rounds + WARM_UP):
        for key, task in tasks.items():
            if len(wall[key]) >= 2 and max(cpu[key]) > SLOW_MS:
                continue
            repeats = 20 if key[2] in ("sample", "environment step") else 1
            start_wall, start_cpu = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                task()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= WARM_UP:
                wall[key].append(1e3 * (time.perf_counter() - start_wall) / repeats)
                cpu[key].append(1e3 * (time.process_time() - start_cpu) / repeats)
    return [
        dict(zip(("task", "size", "name"), key, strict=True))
        | {
            "median_ms": statistics.median(wall[key]),
            "min_ms": min(wall[key]),
            "max_ms": max(wall[key]),
            "cpu_ms": statistics.median(cpu[key]),
            "repeats": len(wall[key]),
        }
        for key in tasks
    ]


def _print(report: dict[str, Any]) -> None:
    print(f"{'':46} {'median ms':>10} {'min ms':>9} {'cpu ms':>9}  relative")
    for row in report["rows"]:
        label = f"{row['task']}, {row['size']}M, {row['name']}"
        print(
            f"{label:46} {row['median_ms']:10.2f} {row['min_ms']:9.2f} {row['cpu_ms']:9.2f}"
            f"  {row.get('relation', '')}"
        )
    print({name: value for name, value in report.items() if name != "rows"})


if __name__ == "__main__":
    main()
