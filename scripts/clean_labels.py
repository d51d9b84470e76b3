"""Which rho to try first where the labels are right: the runs behind a row of the choose page.

``python scripts/clean_labels.py docs/studies/label_noise/clean_labels.csv`` trains the perceptron
of the study on label noise on 300 digits with right labels; a further argument is another network
(``cnn``, ``vit``). Radii are chosen by validation on two seeds, then run with five; a random
direction has the radius of SAM. Rows go to the file as they come and are not computed twice.
"""

import csv
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mbrl_flat.cli.commands import compose_study
from mbrl_flat.studies.framework import Trial, TrialRows
from mbrl_flat.studies.framework.rows import TrialRow

RADII = {
    "base": (0.0,),
    "sam": (0.1, 0.2, 0.4, 0.8),
    "msam": (0.4, 0.8, 1.6, 3.2),
    "sam_on": (0.8, 1.6, 3.2, 6.4),
}
MEASURED = ("validation_accuracy", "test_accuracy", "train_accuracy")


def main(file: str, network: str = "mlp") -> None:
    """Compute what is missing of the file, and print the table."""
    task = {"noise": 0.0, "train_size": 300, "network": network}
    words = [f"study.task.{key}={value}" for key, value in task.items()]
    study = replace(compose_study("experiment=label_noise", *words), radii=RADII)
    path = Path(file)
    rows = read(path) if path.exists() else []

    def compute(cells: list[Trial]) -> None:
        known = {(row["method"], row["rho"], row["seed"]) for row in rows}
        for cell in cells:
            if (cell["method"], cell["rho"], cell["seed"]) in known:
                continue
            measured = study.task.measure(cell)
            rows.append({**cell, **{name: measured[name] for name in MEASURED}})
            write(path, rows)

    compute(study.cells(as_rows(rows)))
    compute(study.cells(as_rows(rows)))
    rho = study.chosen(as_rows(rows), "sam")
    compute([Trial(method="random_direction", rho=rho, seed=seed) for seed in range(study.seeds)])
    for method in (*RADII, "random_direction"):
        at = study.chosen(as_rows(rows), method) if method in RADII else rho
        found = [
            row["test_accuracy"] for row in rows if (row["method"], row["rho"]) == (method, at)
        ]
        error = statistics.stdev(found) / len(found) ** 0.5
        print(f"{method:18} rho {at:<4g} test {statistics.mean(found):.1f} +- {error:.1f}")


def as_rows(rows: list[dict[str, Any]]) -> TrialRows:
    """Rows as a study reads them."""
    return TrialRows([TrialRow(row) for row in rows])


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of the file, numbers as such."""
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            {"method": row["method"], "rho": float(row["rho"]), "seed": int(row["seed"])}
            | {name: float(row[name]) for name in MEASURED}
            for row in csv.DictReader(lines)
        ]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """All rows, as CSV."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, ["method", "rho", "seed", *MEASURED])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
