"""What the figures of ``bench.py`` are relative to, and the table of a page that shows them."""

from pathlib import Path
from typing import Any

MARKS = ("<!-- bench.py writes from here -->", "<!-- to here -->")
STATES = " states "
"""In the names of plans for several states, which the official code does not make."""
ADAM = "update adam"
"""What updates by other optimizers are relative to."""
PUBLISHED_MS: dict[tuple[str, str, int], dict[str, float]] = {
    ("walker-walk", "1", 1): {"update adam": 214.0, "act": 315.0},
    ("walker-walk", "5", 1): {"update adam": 811.0, "act": 833.0},
    ("dog-run", "5", 1): {"update adam": 855.0, "act": 1154.0},
    ("walker-walk", "1", 2): {"update adam": 135.0, "act": 178.0},
    ("walker-walk", "5", 2): {"update adam": 460.0, "act": 484.0},
    ("dog-run", "5", 2): {"update adam": 500.0, "act": 629.0},
}
"""The published code at (task, size, threads) on two AVX-512 cores; the lower of two figures."""


def _fair_ms(row: dict[str, Any]) -> float:
    """CPU time of one thread where that is all there is, else wall time."""
    alone = row["threads"] == 1 and row["device"] == "cpu"
    return row["cpu_ms" if alone else "median_ms"]


def relate(row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Say what a figure is relative to."""
    mine = {r["name"]: r for r in rows if (r["task"], r["size"]) == (row["task"], row["size"])}
    name = row["name"]
    published = PUBLISHED_MS.get((row["task"], row["size"], row["threads"]), {})
    reference = published.get(name.removesuffix(" bfloat16"))
    official = "official " + name.split()[0].rstrip(",")
    peer = mine.get(f"compiled {official}", mine.get(official))
    if name.startswith("update") and not name.startswith("update adam"):
        row["relative_to"] = ADAM
        row["ratio"] = row["cpu_ms"] / mine[ADAM]["cpu_ms"]
        row["relation"] = f"{row['ratio']:.2f} of an Adam update (CPU time)"
    elif peer is not None and "official" not in name and STATES not in name:
        row["relative_to"] = peer["name"]
        row["ratio"] = peer["cpu_ms"] / row["cpu_ms"]
        row["relation"] = f"{row['ratio']:.2f} times as fast as the {peer['name']}"
    elif name.endswith("states at once"):
        row["relative_to"] = name.replace("at once", "one by one")
        row["ratio"] = mine[row["relative_to"]]["cpu_ms"] / row["cpu_ms"]
        row["relation"] = f"{row['ratio']:.2f} times as fast as one by one (CPU time)"
    elif reference is not None:
        row["relative_to"] = "published code"
        row["ratio"] = reference / _fair_ms(row)
        row["relation"] = f"{row['ratio']:.2f} times as fast as the published {reference:.0f} ms"


def end_to_end(settings: list[tuple[str, str]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A step of a run with one update a step: the sum of its parts."""
    parts = ("update adam", "act", "sample", "environment step")
    out: list[dict[str, Any]] = []
    for task, size in settings:
        chosen = [r for r in rows if (r["task"], r["size"]) == (task, size) and r["name"] in parts]
        total = sum(_fair_ms(row) for row in chosen)
        row = {**chosen[0], "name": "end to end", "median_ms": total, "cpu_ms": total}
        published = PUBLISHED_MS.get((task, size, row["threads"]), {})
        row |= {"min_ms": total, "max_ms": total, "steps_per_second": 1e3 / total}
        row["ratio"] = sum(published.values()) / total if published else None
        row["relation"] = f"{1e3 / total:.2f} steps a second"
        out.append(row)
    return out


def write_table(report: dict[str, Any], page: Path) -> None:
    """Put the figures of a report between the two marks of a page.

    Args:
        report: What ``bench.py --json`` writes.
        page: Markdown with both marks.

    Raises:
        ValueError: If a mark is missing.
    """
    text = page.read_text()
    if not all(mark in text for mark in MARKS):
        raise ValueError(f"{page} has no marks {MARKS[0]!r} and {MARKS[1]!r}.")
    before, rest = text.split(MARKS[0], 1)
    page.write_text(f"{before}{MARKS[0]}\n{table(report)}{MARKS[1]}{rest.split(MARKS[1], 1)[1]}")


def table(report: dict[str, Any]) -> str:
    """The figures as lines of Markdown: one row for each thing, one column for each setting."""
    # Other optimizers than Adam are left out: bench_optimizers.py measures all of them.
    rows = [row for row in report["rows"] if STATES not in row["name"]]
    settings = list(dict.fromkeys((row["task"], row["size"]) for row in rows))
    names = list(dict.fromkeys(row["name"] for row in rows if row.get("relative_to") != ADAM))
    cells = {(row["task"], row["size"], row["name"]): row for row in rows}
    cpu = report["rows"][0]["device"] == "cpu"
    where = report.get("machine") or "a CPU"
    lines = [
        f"{where}, {report['capability']}, {report['rows'][0]['threads']} thread(s), torch "
        f"{report['torch']}, load average {report['load_average']:.1f};",
        f"milliseconds of {'CPU time' if cpu else 'wall time'}, medians of one interleaved run.",
        "In brackets: times as fast as the official code, the compiled one where it was measured.",
        "",
        "| | " + " | ".join(f"{task}, {size}" for task, size in settings) + " |",
        "|---|" + "---|" * len(settings),
    ]
    for name in names:
        found = [cells.get((*setting, name)) for setting in settings]
        lines.append(f"| {name} | " + " | ".join(map(_cell, found)) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    # That of a whole step is relative to another machine.
    ratio = None if row["name"] == "end to end" else row.get("ratio")
    return f"{row['cpu_ms']:.1f}" + (f" ({ratio:.2f})" if ratio else "")
