"""How long a step of every optimizer takes, relative to Adam.

Two problems: the update of TD-MPC2 (world model, policy and targets; published 5M size, batch 256,
horizon 3) and a multilayer perceptron of 5M parameters. The optimizers take turns within one
process, so that what else the machine does falls on all of them alike; the warm-up is not counted.
Ratios are of wall and of CPU time; on a machine that does other things only the latter means
something. Besides the registry there are SAM on encoder and dynamics alone (``sam_partial``, of
TD-MPC2) and SAM of the package pytorch-optimizer (``peer_sam``, on the perceptron) if installed.

    python scripts/bench_optimizers.py --threads 1 --json bench_optimizers.json
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.data.batch import Batch
from mbrl_flat.optim import OPTIMIZERS, make_optimizer
from mbrl_flat.runtime.allocator import keep_freed_memory
from mbrl_flat.runtime.device import choose_device
from mbrl_flat.runtime.seeding import seed_everything
from mbrl_flat.specs import Continuous, EnvSpec

WARM_UP = 2
LR = 3e-4
PARTIAL = {"sam_partial": ("sam", {"only": ["encoder", "dynamics"]})}
PEER = "peer_sam"


def main() -> None:
    """Measure and print one table for each problem."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as every run does
    device = choose_device(arguments.device)
    names = ["adam", *[name for name in arguments.names if name != "adam"]]
    extra = {"tdmpc2": [*PARTIAL], "mlp": [PEER] if find_spec("pytorch_optimizer") else []}
    problems: dict[str, Callable[[str], Callable[[], object]]] = {
        "tdmpc2": lambda name: _tdmpc2(name, device, arguments.size),
        "mlp": lambda name: _mlp(name, device),
    }
    rows: list[dict[str, Any]] = []
    print(f"{'problem':8} {'name':18} {'wall':>12} {'ratio':>6} {'of CPU':>8} {'eval.':>6}")
    for problem in arguments.problems:
        wanted = [*names, *(extra[problem] if "sam" in names else [])]
        tasks = {name: problems[problem](name) for name in wanted}
        rows += _measure(problem, tasks, arguments.rounds, device)
    for row in rows:
        row |= {"threads": arguments.threads, "device": str(device)}
        figures = f"{row['median_ms']:9.2f} ms {row['ratio']:6.2f} {row['cpu_ratio']:8.3f}"
        print(f"{row['problem']:8} {row['name']:18} {figures} {row['evaluations']:6g}")
    report = {"rows": rows, "torch": torch.__version__, "load_average": os.getloadavg()[0]}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--names", nargs="+", default=sorted(OPTIMIZERS), choices=OPTIMIZERS)
    problems = ["tdmpc2", "mlp"]
    parser.add_argument("--problems", nargs="+", default=problems, choices=problems)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", default="5")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", default=None)
    return parser.parse_args()


def _build(name: str, groups: Any, *, max_grad_norm: float | None = None) -> Any:
    name, settings = PARTIAL.get(name, (name, {}))
    lr = LR if OPTIMIZERS[name].has_base or "lr" in OPTIMIZERS[name].settings else None
    return make_optimizer(name, groups, lr=lr, max_grad_norm=max_grad_norm, **settings)


def _tdmpc2(name: str, device: torch.device, size: str) -> Callable[[], object]:
    seed_everything(0)
    spec = EnvSpec(
        obs={"state": (24,)}, action=Continuous(dim=6), episode_length=500, action_repeat=2
    )

    def factory(params: Any, *, max_grad_norm: float | None = None) -> Any:
        return _build(name, params, max_grad_norm=max_grad_norm)

    agent = TDMPC2(spec, config=TDMPC2Config(size=size), optimizer=factory, device=device)
    batch = Batch(
        obs={"state": torch.randn(256, 4, 24)},
        action=torch.rand(256, 3, 6) * 2.0 - 1.0,
        reward=torch.rand(256, 3),
        terminated=torch.zeros(256, 3),
    )
    return lambda: agent.update(batch)


def _mlp(name: str, device: torch.device) -> Callable[[], object]:
    seed_everything(0)
    layers: list[nn.Module] = []
    for width in (64, *[512] * 18):
        layers += [nn.Linear(width, 512), nn.LayerNorm(512), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(512, 10)).to(device)
    x, y = torch.randn(256, 64, device=device), torch.randint(10, (256,), device=device)
    if name == PEER:
        kind = import_module("pytorch_optimizer").SAM
        optimizer = kind(net.parameters(), torch.optim.Adam, lr=LR, fused=True)
    else:
        optimizer = _build(name, net)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        return loss.detach()

    def with_gradients() -> None:
        closure()
        optimizer.step(closure)

    return with_gradients if name == PEER else lambda: optimizer.step(closure)


def _measure(
    problem: str, tasks: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    """Median wall and CPU time of every task, taken in turn."""
    wall: dict[str, list[float]] = {name: [] for name in tasks}
    cpu: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(WARM_UP + rounds):
        for name, task in tasks.items():
            start_wall, start_cpu = time.perf_counter(), time.process_time()
            task()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= WARM_UP:
                wall[name].append(1e3 * (time.perf_counter() - start_wall))
                cpu[name].append(1e3 * (time.process_time() - start_cpu))
    base = statistics.median(wall["adam"])
    base_cpu = statistics.median(cpu["adam"])
    return [
        {
            "problem": problem,
            "name": name,
            "median_ms": statistics.median(wall[name]),
            "cpu_ms": statistics.median(cpu[name]),
            "relative_to": "adam",
            "ratio": statistics.median(wall[name]) / base,
            "cpu_ratio": statistics.median(cpu[name]) / base_cpu,
            "evaluations": OPTIMIZERS[name].evaluations if name in OPTIMIZERS else 2,
            "repeats": rounds,
        }
        for name in tasks
    ]


if __name__ == "__main__":
    main()
