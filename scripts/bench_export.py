"""Rates of acting on one core: the policy, the planner, and the planner in bfloat16.

python scripts/bench_export.py --task walker-walk --json export.json

Rates are calls per second of CPU time, so that other jobs on the machine count little; the median
of interleaved rounds. ``agent`` is ``act`` in mbrl_flat, ``exported`` the program of
``mbrl-flat-export`` with torch alone.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from mbrl_flat.cli.main import compose_run
from mbrl_flat.evaluation.multitask import shapes_of
from mbrl_flat.runs.export import example_inputs, export_program, programs_of
from mbrl_flat.runs.parts import build_agent

CASES = (("policy", "float32"), ("planner", "float32"), ("planner", "bfloat16"))


def calls(task: str, size: str, program: str, dtype: str) -> dict:
    """What to time, by name."""
    sizes = ["preset=cpu"] if size == "cpu" else [f"agent.config.size={size}"]
    words = [f"env.task={task}", *sizes, f"agent.config.planner_dtype={dtype}", "device=cpu"]
    config, parts = compose_run(*words)
    spec = shapes_of(parts.vectors, parts.env, seed=0)
    agent = build_agent(config, parts, spec, torch.device("cpu"))
    acting, inputs = programs_of(agent)[program], example_inputs(agent, spec, 1)
    exported = export_program(acting, inputs).module()
    return {"agent": lambda: acting(*inputs), "exported": lambda: exported(*inputs)}


def rate(call, seconds: float) -> float:
    """Calls per second of CPU time."""
    count, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        call()
        count += 1
    return count / (time.process_time() - start)


def main() -> None:
    """Measure, print a table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="walker-walk")
    parser.add_argument("--sizes", default="cpu,5")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="planner's precisions")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    timed = {}
    for size in args.sizes.split(","):
        for program, dtype in (case for case in CASES if case[1] in args.dtypes.split(",")):
            for name, call in calls(args.task, size, program, dtype).items():
                timed[size, program, dtype, name] = call
    found = {key: [] for key in timed}
    with torch.no_grad():
        for call in timed.values():
            call()
        for _ in range(args.rounds):
            for key, call in timed.items():
                found[key].append(rate(call, args.seconds))
    rows = [
        {
            "name": f"{program} {dtype} {name}",
            "size": size,
            "median_hz": round(statistics.median(values), 2),
            "median_ms": round(1000.0 / statistics.median(values), 2),
            "threads": 1,
            "device": "cpu",
            "relative_to": "",
        }
        for (size, program, dtype, name), values in found.items()
    ]
    for row in rows:
        print(f"{row['size']:>4} {row['name']:34} {row['median_hz']:9.1f} Hz")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
