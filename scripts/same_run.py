"""Say whether two runs logged the same numbers and ended with the same weights, bit for bit.

    python scripts/same_run.py runs/adam runs/sam_rho_zero

Times and counts of evaluations are left aside. Exit status 1 if anything else differs.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from mbrl_flat.training.checkpoint import load_safely


def main() -> None:
    """Compare two folders."""
    first, second = (Path(argument) for argument in sys.argv[1:3])
    problems = differences(first, second)
    print(f"differences between {first.name} and {second.name}: {problems or 'none'}")
    sys.exit(1 if problems else 0)


def differences(first: Path, second: Path) -> list[str]:
    """Name what differs: lines of metrics, and tensors of the agent's networks."""
    lines = [_rows(folder / "metrics.jsonl") for folder in (first, second)]
    problems = [f"line {n}" for n, (a, b) in enumerate(zip(*lines, strict=False)) if a != b]
    if len(lines[0]) != len(lines[1]):
        problems.append(f"{len(lines[0])} and {len(lines[1])} lines")
    agents = [load_safely(f / "checkpoints" / "latest.pt")["agent"] for f in (first, second)]
    weights = [_tensors({name: agent[name] for name in ("model", "policy")}) for agent in agents]
    problems += [
        name
        for (name, a), (_, b) in zip(weights[0], weights[1], strict=True)
        if not torch.equal(a, b)
    ]
    if not lines[0] or not weights[0]:
        problems.append("nothing to compare: no line or no weight")
    updates = max(row.get("train/updates", 0) for row in [{}, *lines[0]])
    print(f"compared {len(lines[0])} lines, {len(weights[0])} tensors, {updates:.0f} updates")
    return problems


def _rows(file: Path) -> list[dict[str, Any]]:
    aside = ("time", "optim/evaluations", "optim/evaluations_total")
    return [
        {k: v for k, v in json.loads(line).items() if k not in aside and not k.startswith("time/")}
        for line in file.read_text().splitlines()
    ]


def _tensors(value: Any, name: str = "") -> list[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        return [(name, value)]
    items = value.items() if isinstance(value, dict) else ()
    return [tensor for key, item in items for tensor in _tensors(item, f"{name}/{key}")]


if __name__ == "__main__":
    main()
