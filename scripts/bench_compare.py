"""How long ``mbrl-flat-compare`` takes for hundreds of runs, and how much memory.

Writes runs of invented numbers into a temporary folder (two tasks, as many optimizers and seeds
as it takes), compares them in a process of its own, and removes them.

    python scripts/bench_compare.py --runs 500 --lines 2000 --json bench_compare.json
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SEEDS, TASKS = 10, ("walker-walk", "dog-run")
COMMAND = "import sys; from mbrl_flat.compare.main import main; sys.exit(main())"


def main() -> None:
    """Write the runs, compare them, print one line."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(arguments.runs):
            _write_run(folder / "runs" / f"{number:04d}", number, arguments.lines)
        lines = sum(
            len(path.read_bytes().splitlines()) for path in folder.glob("runs/*/metrics.jsonl")
        )
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", COMMAND, str(folder / "runs"), "--out", str(folder / "report")],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        wall = time.perf_counter() - start
        size = (folder / "report" / "index.html").stat().st_size
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = {
        "name": "compare",
        "runs": arguments.runs,
        "lines": lines,
        "median_ms": 1e3 * wall,
        "cpu_ms": 1e3 * (used.ru_utime + used.ru_stime),
        "peak_rss_mb": used.ru_maxrss / 1e3,
        "page_mb": size / 1e6,
        "threads": 1,
        "device": "cpu",
    }
    print(
        f"{row['runs']} runs, {lines:,} lines: {row['cpu_ms'] / 1e3:.1f} s of CPU time, "
        f"{wall:.1f} s, {row['peak_rss_mb']:.0f} MB, page {row['page_mb']:.1f} MB"
    )
    if arguments.json:
        report = {"rows": [row], "load_average": os.getloadavg()[0]}
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--json", default=None)
    return parser.parse_args()


def _write_run(folder: Path, number: int, lines: int) -> None:
    """One run: a line of training metrics, and an evaluation and a probe after every tenth."""
    rng = np.random.default_rng(number)
    group, seed = divmod(number, SEEDS)
    folder.mkdir(parents=True)
    method, task = divmod(group, len(TASKS))
    optimizer = "adam" if method == 0 else "sam"
    config: dict[str, Any] = {
        "names": {"agent": "tdmpc2", "env": "dmc", "task": TASKS[task], "optimizer": optimizer},
        "seed": seed,
        "steps": lines * 1000,
        "optimizer": {"lr": 3e-4} | ({} if method == 0 else {"rho": round(0.001 * method, 3)}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    names = [f"train/{part}_loss" for part in "abcdefghij"] + [
        "optim/evaluations", "optim/evaluations_total", "optim/grad_norm", "optim/param_norm",
        "time/env", "time/act", "time/update", "time/sample", "time/steps_per_second",
    ]  # fmt: skip
    rows: list[dict[str, float]] = []
    while len(rows) < lines:
        step = 1000 * (len(rows) + 1)
        rows.append(_row(step, dict(zip(names, rng.random(len(names)).tolist(), strict=True))))
        rows[-1]["optim/evaluations_total"] = float(step * (1 + (method > 0)))
        if len(rows) % 10 == 0:
            rows.append(_row(step, _evaluation(rng, step)))
            rows.append(_row(step, _sharpness(rng)))
    text = "".join(json.dumps(row) + "\n" for row in rows[:lines])
    (folder / "metrics.jsonl").write_text(text)


def _row(step: int, metrics: dict[str, float]) -> dict[str, float]:
    return {"step": step, "frame": 2 * step, "time": 1.7e9 + step, **metrics}


def _evaluation(rng: np.random.Generator, step: int) -> dict[str, float]:
    level = 900.0 * (1.0 - np.exp(-step / 5e5))
    return {
        "eval/return_mean": float(level + 30.0 * rng.normal()),
        "eval/return_std": 10.0,
        "eval/random_return_mean": 20.0,
        "probe/value/bias": float(rng.normal()),
        "probe/value/rmse": float(rng.random()),
        "probe/value/rmse_normalised": float(rng.random()),
        "probe/value/spearman": float(rng.random()),
    }


def _sharpness(rng: np.random.Generator) -> dict[str, float]:
    modules = ("", "encoder/", "dynamics/", "reward/", "q/")
    names = ("lambda_max", "lambda_min", "sam_gap", "first_order", "grad_norm", "param_norm")
    return {
        f"probe/sharpness/{module}{name}": float(rng.lognormal())
        for module in modules
        for name in names
    }


if __name__ == "__main__":
    main()
