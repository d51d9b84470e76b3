"""What one update costs when it is split over processes, against one process with the whole batch.

TD-MPC2 at the published 5M size, batch 256, horizon 3. All processes of a measurement run at once,
on as many threads each as asked for; the plain update is measured in process 0 while the others
wait, in turn with the split one. CPU time is that of process 0: what it computes and what it packs
and unpacks, without waiting. Wall time means something only where nothing else runs.

    python scripts/bench_ddp.py --processes 2 --threads 1 --json bench_ddp.json
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.data.batch import Batch
from mbrl_flat.distributed.processes import Processes
from mbrl_flat.distributed.split_update import SplitUpdate, follow
from mbrl_flat.optim import make_optimizer
from mbrl_flat.runtime.seeding import seed_everything
from mbrl_flat.specs import Continuous, EnvSpec

CPU = torch.device("cpu")
WARM_UP = 2
SPEC = EnvSpec(obs={"state": (24,)}, action=Continuous(dim=6), episode_length=500, action_repeat=2)


def main() -> None:
    """Measure and print one row for each optimizer and kind of synchronisation."""
    arguments = _arguments()
    rows: list[dict[str, Any]] = []
    for case in arguments.cases:
        optimizer, _, sync = case.partition(":")
        store = Path(arguments.store).absolute()
        store.unlink(missing_ok=True)
        answer = mp.get_context("spawn").SimpleQueue()
        mp.spawn(
            _measure,
            args=(arguments, (optimizer, sync or "global"), str(store), answer),
            nprocs=arguments.processes,
        )
        rows.append(answer.get())
        row = rows[-1]
        print(
            f"{case:14} one {row['one_cpu_ms']:8.1f} ms, {row['processes']} processes "
            f"{row['cpu_ms']:8.1f} ms of CPU in each: {row['cpu_ratio']:.3f} "
            f"(wall {row['wall_ratio']:.2f})"
        )
    report = {"rows": rows, "torch": torch.__version__, "load_average": os.getloadavg()[0]}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", nargs="+", default=["adam", "sam:global", "sam:local"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", default="5")
    parser.add_argument("--store", default=".bench_ddp_store", help="file by which they meet")
    parser.add_argument("--json", default=None)
    return parser.parse_args()


def _agent(arguments: argparse.Namespace, spec: EnvSpec, optimizer: str, sync: str) -> TDMPC2:
    seed_everything(0)

    def factory(params: Any, *, max_grad_norm: float | None = None) -> Any:
        return make_optimizer(optimizer, params, lr=3e-4, max_grad_norm=max_grad_norm, sync=sync)

    return TDMPC2(spec, config=TDMPC2Config(size=arguments.size), optimizer=factory, device=CPU)


def _measure(
    rank: int, arguments: argparse.Namespace, case: tuple[str, str], store: str, answer: Any
) -> None:
    torch.set_num_threads(arguments.threads)
    count = arguments.processes
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    processes = Processes(rank=rank, count=count)
    if rank > 0:
        follow(lambda spec: _agent(arguments, spec, *case), processes, CPU)
    else:
        split = SplitUpdate(_agent(arguments, SPEC, *case), SPEC, processes, CPU)
        alone = _agent(arguments, SPEC, case[0], "none")
        answer.put({"name": " ".join(case), **_compare(alone, split, arguments)})
        processes.send(None)
    dist.destroy_process_group()


def _compare(alone: TDMPC2, split: SplitUpdate, arguments: argparse.Namespace) -> dict[str, Any]:
    batch = Batch(
        obs={"state": torch.randn(256, 4, 24)},
        action=torch.rand(256, 3, 6) * 2.0 - 1.0,
        reward=torch.rand(256, 3),
        terminated=torch.zeros(256, 3),
    )
    times: dict[str, list[tuple[float, float]]] = {"one": [], "split": []}
    for number in range(WARM_UP + arguments.rounds):
        for name, update in (("one", alone.update), ("split", split)):
            wall, cpu = time.perf_counter(), time.process_time()
            update(batch)
            if number >= WARM_UP:
                spent = (time.perf_counter() - wall, time.process_time() - cpu)
                times[name].append(spent)
    wall_one, cpu_one = (1e3 * statistics.median(t) for t in zip(*times["one"], strict=True))
    wall, cpu = (1e3 * statistics.median(t) for t in zip(*times["split"], strict=True))
    return {
        "processes": arguments.processes,
        "threads": arguments.threads,
        "device": "cpu",
        "median_ms": wall,
        "cpu_ms": cpu,
        "one_ms": wall_one,
        "one_cpu_ms": cpu_one,
        "relative_to": "one process with the whole batch",
        "wall_ratio": wall / wall_one,
        "cpu_ratio": cpu / cpu_one,
        "repeats": arguments.rounds,
    }


if __name__ == "__main__":
    main()
