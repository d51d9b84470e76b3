"""How long one update, act, sample and environment step of TD-MPC2 take, and how much memory.

Published 5M size, walker-walk, batch 256, horizon 3, 512 samples, 6 iterations, float32. Every
figure comes from one process that takes the measured things in turn, so that what else the
machine does falls on all of them alike; the warm-up is not counted. Wall time and the process's
CPU time are both given: on a busy machine only the second means something.

    python scripts/bench.py --threads 2 --json bench.json
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.tdmpc2.agent import TDMPC2
from agents.tdmpc2.config import TDMPC2Config
from envs.dmc import make
from mbrl_flat.allocator import keep_freed_memory
from mbrl_flat.data.replay import Replay
from mbrl_flat.device import choose_device
from mbrl_flat.optim import make_optimizer
from mbrl_flat.seeding import seed_everything
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.train import rss_bytes

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"lr": 3e-4},
    "sam": {"lr": 3e-4, "rho": 0.01},
    "sam only=[encoder,dynamics]": {"lr": 3e-4, "rho": 0.01, "only": ["encoder", "dynamics"]},
}
PUBLISHED_MS = {"update adam": 460.0, "act": 490.0}
"""The published code on a 2-core machine without a GPU, two threads, same sizes."""


def main() -> None:
    """Measure and print one table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    device = choose_device(arguments.device)
    if arguments.memory:
        print(f"peak memory with {arguments.memory}: {_memory(arguments, device):.0f} MB")
        return
    tasks = _tasks(device, arguments.size)
    rows = _measure(tasks, arguments.rounds, device)
    for row in rows:
        row |= {"threads": arguments.threads, "device": str(device), "size": arguments.size}
        _relate(row, rows)
    report = {
        "rows": rows,
        "peak_rss_mb": rss_bytes() / 1e6,
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    print(f"{'':34} {'median ms':>10} {'min ms':>9} {'cpu ms':>9}  relative")
    for row in rows:
        print(
            f"{row['name']:34} {row['median_ms']:10.2f} {row['min_ms']:9.2f} {row['cpu_ms']:9.2f}"
            f"  {row.get('relation', '')}"
        )
    print(
        f"peak memory of all {len(OPTIMIZERS)} agents {report['peak_rss_mb']:.0f} MB, "
        f"{arguments.threads} threads on "
        f"{report['cores']} cores, load {report['load_average']:.2f}, torch {torch.__version__}"
    )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", default="5")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", default=None)
    parser.add_argument("--memory", choices=list(OPTIMIZERS), help="only this agent's peak memory")
    return parser.parse_args()


def _agent(optimizer: str, spec: EnvSpec, device: torch.device, size: str) -> TDMPC2:
    seed_everything(0)
    name = optimizer.split(maxsplit=1)[0]

    def factory(groups: Any, *, max_grad_norm: float | None = None) -> Any:
        return make_optimizer(name, groups, max_grad_norm=max_grad_norm, **OPTIMIZERS[optimizer])

    return TDMPC2(spec, config=TDMPC2Config(size=size), optimizer=factory, device=device)


def _tasks(device: torch.device, size: str) -> dict[str, Callable[[], object]]:
    """What is measured, ready to be called."""
    spec = EnvSpec(
        obs={"state": (24,)}, action=Continuous(dim=6), episode_length=500, action_repeat=2
    )
    replay = _filled_replay(spec)
    rng = np.random.default_rng(0)
    batch = replay.sample(256, 3, rng=rng)
    agents = {name: _agent(name, spec, device, size) for name in OPTIMIZERS}
    tasks: dict[str, Callable[[], object]] = {
        f"update {name}": lambda agent=agent: agent.update(batch) for name, agent in agents.items()
    }
    agent = agents["adam"]
    obs = {"state": torch.randn(1, 24, device=device)}
    state = agent.initial_state(1)
    generator = torch.Generator(device).manual_seed(0)
    tasks["act"] = lambda: agent.act(obs, state, mode="explore", generator=generator)
    tasks["sample"] = lambda: replay.sample(256, 3, rng=rng)
    env = make("walker-walk", seed=0)
    env.reset()
    action = np.zeros(6, np.float32)
    tasks["environment step"] = lambda: env.step(action)
    return tasks


def _memory(arguments: argparse.Namespace, device: torch.device) -> float:
    """Peak megabytes of a process with one agent, after ten updates and ten actions."""
    spec = EnvSpec(
        obs={"state": (24,)}, action=Continuous(dim=6), episode_length=500, action_repeat=2
    )
    batch = _filled_replay(spec).sample(256, 3, rng=np.random.default_rng(0))
    agent = _agent(arguments.memory, spec, device, arguments.size)
    generator = torch.Generator(device).manual_seed(0)
    obs, state = {"state": torch.randn(1, 24, device=device)}, agent.initial_state(1)
    for _ in range(10):
        agent.update(batch)
        agent.act(obs, state, mode="explore", generator=generator)
    return rss_bytes() / 1e6


def _filled_replay(spec: EnvSpec) -> Replay:
    replay = Replay(spec, 20_000)
    rng = np.random.default_rng(0)
    for _ in range(20):
        replay.begin(0, {"state": rng.normal(size=24)})
        for step in range(spec.episode_length):
            replay.add(
                0,
                rng.uniform(-1, 1, 6),
                float(rng.uniform()),
                {"state": rng.normal(size=24)},
                terminated=False,
                done=step == spec.episode_length - 1,
            )
    return replay


def _measure(
    tasks: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    wall: dict[str, list[float]] = {name: [] for name in tasks}
    cpu: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 3):
        for name, task in tasks.items():
            repeats = 20 if name in ("sample", "environment step") else 1
            start_wall, start_cpu = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                task()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= 3:
                wall[name].append(1e3 * (time.perf_counter() - start_wall) / repeats)
                cpu[name].append(1e3 * (time.process_time() - start_cpu) / repeats)
    return [
        {
            "name": name,
            "median_ms": statistics.median(wall[name]),
            "min_ms": min(wall[name]),
            "max_ms": max(wall[name]),
            "cpu_ms": statistics.median(cpu[name]),
            "repeats": rounds,
        }
        for name in tasks
    ]


def _relate(row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Say what a figure is relative to."""
    base = next(other for other in rows if other["name"] == "update adam")
    if row["name"].startswith("update sam"):
        row["relative_to"] = "update adam"
        row["ratio"] = row["cpu_ms"] / base["cpu_ms"]
        row["relation"] = f"{row['ratio']:.2f} of an Adam update (CPU time)"
    elif row["name"] in PUBLISHED_MS and row["size"] == "5":
        row["relative_to"] = "published code"
        row["ratio"] = PUBLISHED_MS[row["name"]] / row["median_ms"]
        row["relation"] = (
            f"{row['ratio']:.2f} times as fast as the published {PUBLISHED_MS[row['name']]:.0f} ms"
        )


if __name__ == "__main__":
    main()
