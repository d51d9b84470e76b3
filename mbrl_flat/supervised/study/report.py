"""What a study leaves behind: ``results.csv``, ``claims.csv``, ``claims.md`` and pictures."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from mbrl_flat.plot_style import save_figure
from mbrl_flat.run_folder import write_text_atomically
from mbrl_flat.stats import Interval
from mbrl_flat.supervised.study.claims import Claim
from mbrl_flat.supervised.study.rows import SECONDS, Rows
from mbrl_flat.supervised.study.study import Study

_CLAIM_COLUMNS = ("claim", "statement", "metric", "mean", "low", "high", "seeds", "verdict", "note")


def write_report(study: Study, rows: Rows, folder: Path, *, command: str) -> list[Path]:
    """Write tables and pictures of a study whose rows are all there.

    Args:
        study: Whose.
        rows: Its rows.
        folder: Where to; files of an earlier report are replaced.
        command: How the study is run again.

    Returns:
        The files written.
    """
    claims = list(study.claims(rows))
    texts = {
        "results.csv": results_csv(rows),
        "claims.csv": claims_csv(claims),
        "claims.md": _page(study, rows, claims, command),
    }
    for name, text in texts.items():
        write_text_atomically(folder / name, text)
    pictures = [
        path
        for name, figure in study.figures(rows).items()
        for path in _save(figure, folder / "plots" / name)
    ]
    return [*(folder / name for name in texts), *pictures]


def results_csv(rows: Rows) -> str:
    """Every row with every number in it; curves stay in ``rows.jsonl``."""
    names = [
        name
        for name in dict.fromkeys(key for row in rows for key in row)
        if name != SECONDS and not any(isinstance(row.get(name), list) for row in rows)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_csv_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def claims_csv(claims: Sequence[Claim]) -> str:
    """The table of claims for programs; empty where there is no number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CLAIM_COLUMNS)
    for claim in claims:
        low, point, high = claim.interval
        numbers = [_csv_cell(value) for value in (point, low, high)]
        texts = [claim.name, claim.statement, claim.metric]
        writer.writerow([*texts, *numbers, claim.num_seeds, claim.verdict, claim.note])
    return text.getvalue()


def claims_markdown(claims: Sequence[Claim]) -> str:
    """The table of claims for people."""
    lines = ["| | claim | measured | seeds | mean [95 % interval] | verdict |", "|---" * 6 + "|"]
    for claim in claims:
        note = f" ({claim.note})" if claim.note else ""
        cells = [claim.name, claim.statement, claim.metric, str(claim.num_seeds)]
        cells += [format_interval(claim.interval), f"**{claim.verdict}**{note}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def format_interval(interval: Interval) -> str:
    """``point [low, high]`` in four significant digits; a dash where nothing was measured."""
    if math.isnan(interval.point):
        return "-"
    if math.isnan(interval.low):
        return f"{interval.point:.4g}"
    return f"{interval.point:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def _page(study: Study, rows: Rows, claims: Sequence[Claim], command: str) -> str:
    minutes = math.fsum(rows.values(SECONDS)) / 60.0
    parts = [
        f"# {study.title}",
        f"Claims of {study.paper}.",
        claims_markdown(claims),
        _divergence(rows),
        f"`{command}`: {len(rows)} runs, {minutes:.1f} minutes of CPU time in one thread.",
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _divergence(rows: Rows) -> str:
    diverged = rows.diverged_at()
    if not diverged:
        return ""
    return (
        f"{len(diverged)} of {len(rows)} runs diverged, between steps {min(diverged)} and "
        f"{max(diverged)}; `results.csv` says which, and they are in no mean."
    )


def _csv_cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _save(figure: Figure, stem: Path) -> list[Path]:
    picture = save_figure(figure, stem.with_suffix(".png"))
    vector = stem.with_suffix(".svg")
    # Without the date and with a fixed salt, equal figures give equal files.
    with matplotlib.rc_context({"svg.hashsalt": stem.name}):
        figure.savefig(vector, format="svg", metadata={"Date": None})
    return [picture, vector]
