"""Steps a second of whole runs with ``preset=cpu``, evaluations and probes included.

Runs of two revisions go side by side, one thread each, so that what else the machine does falls on
both alike. CPU time is that of all processes of a run. Its parts are those that a run logs: their
share of the wall time, times the CPU time. ``probe`` includes evaluations; the rest is the start,
checkpoints and figures.

    python scripts/bench_run.py --before ../other/.venv/bin --steps 2500
    python scripts/bench_run.py --set optimizer=sam seed_steps=500
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

PARTS = ("act", "update", "env", "sample", "probe")


def main() -> None:
    """Run, and print one table."""
    arguments = _arguments()
    binaries = {"now": Path(sys.executable).parent}
    if arguments.before:
        binaries["before"] = Path(arguments.before)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
        for number in range(arguments.rounds):
            begun = [
                pool.submit(_run, folder, Path(name) / f"{revision}_{number}", number, arguments)
                for revision, folder in binaries.items()
            ]
            rows += [
                {"name": revision} | future.result()
                for revision, future in zip(binaries, begun, strict=True)
            ]
    print(_table(rows))
    if arguments.json:
        report = {"rows": rows, "load_average": os.getloadavg()[0]}
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", help="folder with the commands of another revision")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--task", default="walker-walk")
    parser.add_argument("--set", nargs="*", default=[], help="settings of both revisions")
    parser.add_argument("--json", default=None)
    return parser.parse_args()


def _run(
    binaries: Path, folder: Path, number: int, arguments: argparse.Namespace
) -> dict[str, float]:
    """One run: seconds of CPU and wall time, steps a second of CPU time, seconds of each part."""
    command = [
        str(binaries / "mbrl-flat-train"), "preset=cpu", f"env.task={arguments.task}",
        f"steps={arguments.steps}", f"seed={number}", "device=cpu", "threads=1", "progress=false",
        f"run_dir={folder}", *arguments.set,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    # A session of its own: some schedulers share a processor among sessions.
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}.")
    cpu = used.ru_utime + used.ru_stime
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    parts = {
        part: cpu / wall * sum(row.get(f"time/{part}", 0.0) for row in logged) for part in PARTS
    }
    rest = cpu - sum(parts.values())
    return {
        "cpu": cpu,
        "wall": wall,
        "steps_per_second": arguments.steps / cpu,
        "rest": rest,
    } | parts


def _table(rows: list[dict[str, Any]]) -> str:
    """Medians over the rounds as Markdown; the gain is the ratio of the two."""
    names = sorted({row["name"] for row in rows})
    lines = ["| | " + " | ".join(names) + " | gain |", "|---|" + "---|" * (len(names) + 1)]
    for key in ("cpu", *PARTS, "rest", "steps_per_second"):
        found = [median(row[key] for row in rows if row["name"] == name) for name in names]
        ratio = found[0] / found[-1] if key != "steps_per_second" else found[-1] / found[0]
        gain = f"{ratio:.2f}" if len(found) > 1 and min(found) > 0 else ""
        lines.append(f"| {key} | " + " | ".join(f"{x:.2f}" for x in found) + f" | {gain} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
