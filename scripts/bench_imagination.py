"""How long the parts of the agents take that learn in imagination.

For each agent, preset and precision: one step of the world model, one imagined rollout from all
its states, one step of actor and critic on it, and one action. All rows come from one process that
takes the measured things in turn; wall time and CPU time are both given: on a busy machine only
the second means something.

    python scripts/bench_imagination.py --presets cpu --json bench_imagination.json
    python scripts/bench_imagination.py --presets cpu --image 4 10 10    # MinAtar's cells
    python scripts/bench_imagination.py --agents storm --presets default --rounds 1

The default presets are the published sizes: minutes a row on a CPU.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mbrl_flat.agents.imagination import ModelOutput, flatten_states, imagine
from mbrl_flat.agents.imagination_agent import ImaginationAgent
from mbrl_flat.cli.main import compose_run
from mbrl_flat.data.batch import Batch
from mbrl_flat.runs.parts import build_agent
from mbrl_flat.runtime.allocator import keep_freed_memory
from mbrl_flat.runtime.device import choose_device
from mbrl_flat.specs import Discrete, EnvSpec

PUBLISHED_MS = {
    ("storm", "default", "float32", "world model"): 8540.0,
    ("storm", "default", "bfloat16", "world model"): 4180.0,
}
"""The published STORM code on one core of an AMD EPYC (Zen 4), CPU time, 16 x 64 frames."""


def main() -> None:
    """Measure and print one table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    device = choose_device(arguments.device)
    spec = EnvSpec(
        obs={"image": tuple(arguments.image)},
        action=Discrete(num=6),
        episode_length=27_000,
        images=frozenset({"image"}),
    )
    rows: list[dict[str, Any]] = []
    for agent in arguments.agents:
        for preset in arguments.presets:
            rows += _rows(agent, preset, arguments, spec, device)
    report = {
        "rows": rows,
        "image": arguments.image,
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


def _rows(
    agent: str, preset: str, arguments: argparse.Namespace, spec: EnvSpec, device: torch.device
) -> list[dict[str, Any]]:
    """Measure one agent at one size in all precisions, in turn."""
    tasks: dict[tuple[str, str], Callable[[], object]] = {}
    for precision in arguments.precisions:
        config, parts = compose_run(
            f"agent={agent}",
            f"preset={preset}",
            "env=atari",
            f"agent.config.imagination.precision={precision}",
        )
        built = build_agent(config, parts, spec, device)
        assert isinstance(built, ImaginationAgent)
        tasks |= {(precision, name): task for name, task in _tasks(built).items()}
    times: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in tasks}
    for task in tasks.values():
        task()
    for _ in range(arguments.rounds):
        for key, task in tasks.items():
            times[key].append(_timed(task, device))
    rows = []
    for (precision, part), pairs in times.items():
        row = {
            "name": f"{agent} {preset} {precision} {part}",
            "median_ms": 1e3 * statistics.median(wall for wall, _ in pairs),
            "cpu_ms": 1e3 * statistics.median(cpu for _, cpu in pairs),
            "threads": arguments.threads,
            "device": str(device),
        }
        published = PUBLISHED_MS.get((agent, preset, precision, part))
        same = spec.obs["image"] == (3, 64, 64) and device.type == "cpu"
        if published is not None and same and arguments.threads == 1:
            row["relative_to"] = "the published code, another run on another day"
            row["speedup"] = published / row["cpu_ms"]
        rows.append(row)
        factor = f"  {row['speedup']:.2f} of the published code" if "speedup" in row else ""
        print(
            f"{row['name']:44} {row['median_ms']:10.1f} {row['cpu_ms']:10.1f}{factor}", flush=True
        )
    return rows


def _tasks(agent: ImaginationAgent) -> dict[str, Callable[[], object]]:
    """What is measured of one agent."""
    batch = _batch(agent)
    num, horizon = agent.batch_size, agent.config.horizon
    targets = agent.model.targets(batch)
    with agent._autocast():
        states = agent.model.observe_batch(batch, targets)
    starts = {name: value[:, 1:] for name, value in states.items()}
    observation = {name: value[:1, 0] for name, value in batch.obs.items()}
    generator = torch.Generator(agent.device).manual_seed(0)
    acting = agent.initial_state(1)

    def world_model() -> ModelOutput:
        outputs: list[ModelOutput] = []
        fixed = agent.model.targets(batch)

        def closure() -> Tensor:
            agent.optimizer.zero_grad()
            with agent._autocast():
                outputs.append(agent.model.loss(batch, fixed))
            outputs[-1].loss.backward()
            return outputs[-1].loss.detach()

        agent.optimizer.step(closure)
        return outputs[0]

    def rollout() -> object:
        with agent._autocast():
            return imagine(agent.model, agent.actor_critic, flatten_states(starts), horizon)

    def act() -> object:
        return agent.act(observation, acting, mode="explore", generator=generator)

    steps = f"{num * agent.sequence_length} states x {horizon} steps"
    return {
        "world model": world_model,
        f"imagination, {steps}": rollout,
        "whole update": lambda: agent.update(batch),
        "act": act,
    }


def _batch(agent: ImaginationAgent) -> Batch:
    generator = torch.Generator().manual_seed(0)
    num, length = agent.batch_size, agent.sequence_length
    spec = agent.spec
    shape = (num, length + 1, *spec.obs["image"])
    choice = torch.randint(spec.action.size, (num, length), generator=generator)
    return Batch(
        obs={"image": torch.randint(256, shape, generator=generator, dtype=torch.uint8)},
        action=torch.nn.functional.one_hot(choice, spec.action.size).float(),
        reward=torch.randn(num, length, generator=generator),
        terminated=torch.zeros(num, length),
        is_first=torch.zeros(num, length + 1, dtype=torch.bool),
    ).to(agent.device)


def _timed(task: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--agents", nargs="+", default=["dreamerv3", "storm", "twister"])
    parser.add_argument("--presets", nargs="+", default=["cpu", "default"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--image", nargs=3, type=int, default=[3, 64, 64], help="C, H and W")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
