"""Output of a study: rows and claims as CSV, pages of claims and means, figures."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mbrl_flat.analysis.plot_style import save_figure
from mbrl_flat.analysis.stats import Interval, standard_error, t_interval
from mbrl_flat.runtime.files import csv_text, write_text_atomically
from mbrl_flat.studies.framework.claims import Claim, corrected
from mbrl_flat.studies.framework.rows import SECONDS, TrialRows
from mbrl_flat.studies.framework.study import Study

_CLAIM_COLUMNS = (
    *("claim", "statement", "metric", "mean", "low", "high", "seeds", "verdict"),
    *("p_value", "adjusted_p", "corrected_verdict", "note"),
)


def write_report(study: Study, rows: TrialRows, folder: Path, *, command: str) -> list[Path]:
    """Write tables and figures of a study whose rows are all there.

    Args:
        study: The study that the report is of.
        rows: Its finished trials, one mapping each.
        folder: Where to; files of an earlier report are replaced.
        command: How the study is run again.

    Returns:
        The files written.
    """
    claims = corrected(study.claims(rows))
    texts = {
        "results.csv": results_csv(rows),
        "claims.csv": claims_csv(claims),
        "claims.md": _page(study, rows, claims, command),
        "summary.md": summary_markdown(rows),
    }
    for name, text in texts.items():
        write_text_atomically(folder / name, text)
    drawn = [
        save_figure(figure, folder / "plots" / f"{name}{ending}")
        for name, figure in study.figures(rows).items()
        for ending in (".png", ".svg")
    ]
    return [*(folder / name for name in texts), *drawn]


def results_csv(rows: TrialRows) -> str:
    """Every row with every number in it; curves stay in ``rows.jsonl``."""
    names = [
        name
        for name in dict.fromkeys(key for row in rows for key in row)
        if name != SECONDS and not any(isinstance(row.get(name), list) for row in rows)
    ]
    return csv_text([names, *([_csv_cell(row.get(name)) for name in names] for row in rows)])


def claims_csv(claims: Sequence[Claim]) -> str:
    """The table of claims for programs; empty where there is no number."""
    lines: list[Iterable[object]] = [_CLAIM_COLUMNS]
    for claim in claims:
        low, point, high = claim.interval
        row = [claim.name, claim.statement, claim.metric, point, low, high, claim.num_seeds]
        row += [claim.verdict, claim.p_value, claim.adjusted_p, claim.corrected, claim.note]
        lines.append(map(_csv_cell, row))
    return csv_text(lines)


def claims_markdown(claims: Sequence[Claim]) -> str:
    """The table of claims for people; ``measured`` is left out where the claims say it."""
    measured = [_beyond_statement(claim) for claim in claims]
    heads = ["", "claim", "corrected verdict", "seeds", "mean [95 % interval]"]
    heads += ["measured"] if any(measured) else []
    rows = [[*heads, "verdict", "adjusted p"]]
    for claim, metric in zip(claims, measured, strict=True):
        note = f" ({claim.note})" if claim.note else ""
        cells = [claim.name, claim.statement, f"**{claim.corrected}**", str(claim.num_seeds)]
        cells += [format_interval(claim.interval), *([metric] if any(measured) else [])]
        rows.append([*cells, f"{claim.verdict}{note}", _format_p(claim.adjusted_p)])
    lines = [f"| {' | '.join(cells)} |\n" for cells in rows]
    return "".join([lines[0].replace("|  |", "| |"), "|---" * len(rows[0]) + "|\n", *lines[1:]])


def _beyond_statement(claim: Claim) -> str:
    """The metric without what the end of the statement says already."""
    told = claim.statement.rsplit(": ", 1)[-1]
    return claim.metric.removeprefix(told).removeprefix(",").strip()


def _format_p(p_value: float) -> str:
    if math.isnan(p_value):
        return "-"
    digits = 3 if 0.045 <= p_value < 0.055 else 2  # At the bound of 0.05 two do not show the side.
    return f"{p_value:.{digits}g}" if p_value >= 1e-4 else "< 1e-4"


def format_interval(interval: Interval) -> str:
    """``point [low, high]`` in four significant digits; a dash where nothing was measured."""
    if math.isnan(interval.point):
        return "-"
    if math.isnan(interval.low):
        return f"{interval.point:.4g}"
    return f"{interval.point:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def summary_markdown(rows: TrialRows) -> str:
    """Every setting with the mean of every number over its seeds, and its standard error.

    Args:
        rows: Finished trials of the study, one mapping each.

    Returns:
        Markdown; settings with the same entries share a table.
    """
    tables: dict[tuple[str, ...], dict[str, TrialRows]] = {}
    for row in rows:
        names = tuple(name for name in row.settings if name != "seed")
        setting = " | ".join(str(row[name]) for name in names)
        groups = tables.setdefault(names, {})
        groups[setting] = TrialRows([*groups.get(setting, ()), row])
    return "\n".join(_summary_table(names, groups) for names, groups in tables.items())


def _summary_table(names: Sequence[str], groups: Mapping[str, TrialRows]) -> str:
    metrics = [
        metric
        for metric in dict.fromkeys(key for ours in groups.values() for row in ours for key in row)
        if metric not in (*names, "seed", SECONDS) and _is_number(groups.values(), metric)
    ]
    heads = [name.replace("_", " ") for name in (*names, "seeds", *metrics)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for setting, ours in groups.items():
        numbers = [_mean_and_error(ours.values(metric)) for metric in metrics]
        lines.append("| " + " | ".join([setting, str(len(ours)), *numbers]) + " |")
    return "\n".join(lines) + "\n"


def _is_number(groups: Iterable[TrialRows], metric: str) -> bool:
    values = [row[metric] for ours in groups for row in ours if row.get(metric) is not None]
    return all(isinstance(value, int | float) for value in values)


def _mean_and_error(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{t_interval(values).point:.4g}"
    return mean if len(values) < 2 else f"{mean} +- {standard_error(values):.2g}"


def _page(study: Study, rows: TrialRows, claims: Sequence[Claim], command: str) -> str:
    minutes = math.fsum(rows.values(SECONDS)) / 60.0
    parts = [
        f"# {study.title}",
        f"Claims of {study.paper}.",
        claims_markdown(claims),
        _divergence(rows),
        f"`{command}`: {len(rows)} runs, {minutes:.1f} minutes of CPU time in one thread.",
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _divergence(rows: TrialRows) -> str:
    diverged = rows.diverged_at()
    if not diverged:
        return ""
    return (
        f"{len(diverged)} of {len(rows)} runs diverged, between steps {min(diverged)} and "
        f"{max(diverged)}; `results.csv` says which, and they are in no mean."
    )


def _csv_cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
