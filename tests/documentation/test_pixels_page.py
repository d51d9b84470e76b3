"""The numbers of the run from pixels are those of the log that is kept beside the page."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from mbrl_flat.cli import main as cli

FOLDER = Path(cli.__file__).parents[2] / "docs" / "environments"


def test_the_table_of_the_run_is_its_log():
    page = (FOLDER / "pixels.md").read_text(encoding="utf-8")
    lines = (FOLDER / "pixels.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    evaluations = [row for row in rows if "eval/return_mean" in row]
    random = evaluations[0]["eval/random_return_mean"]
    last = evaluations[-1]["eval/return_mean"]

    table = []
    for before, row in pairwise([{"step": -1}, *evaluations]):
        played = [
            found["episode/return"]
            for found in rows
            if "episode/return" in found and before["step"] < found["step"] <= row["step"]
        ]
        mean = f"{np.mean(played):.0f} |" if played else "|"
        cells = f"{row['step']:,} | {row['frame']:,} | {row['eval/return_mean']:.0f}"
        table.append(f"| {cells} +- {row['eval/return_std']:.0f} | {mean}\n")
        assert len(played) in {0, 4}
    memory = max(row.get("time/rss_bytes", 0.0) for row in rows) / 1e9

    assert "".join(table) in page
    assert f"return of {random:.0f}, the planner {last / random:.1f} times" in page
    assert f"{memory:.2f} GB of memory" in page
