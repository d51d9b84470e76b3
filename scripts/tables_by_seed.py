"""Put the runs of reports side by side: tables of variants and of paired differences, one figure.

Reads the ``seeds.csv`` that ``mbrl-flat-compare`` writes, of several reports if there are several.
Differences (of eigenvalues: quotients) are taken seed by seed, with Student's 95 % interval over
the seeds that both have.
Writes ``NAME.md`` and ``NAME.png``.

    python scripts/tables_by_seed.py report/seeds.csv --pairs sam-adam vasso-sam --out by_seed
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t

from mbrl_flat.analysis.forest import ForestRow, draw_forest
from mbrl_flat.analysis.plot_style import make_panels, method_style, save_figure
from mbrl_flat.compare.tables import format_number

COLUMNS = {
    "final_return": "return",
    "value_rmse_normalised": "value error (NRMSE)",
    "value_rmse": "value error (RMSE)",
    "value_bias": "value bias",
    "lambda_max": "largest Hessian eigenvalue",
}
"""What can be shown of a run, and what it is called."""
RATIOS = ("value_rmse", "lambda_max")
"""Columns whose seeds are compared by quotients, with their geometric mean; drawn so as well."""
SHOWN = ("final_return", "value_rmse_normalised", "lambda_max")
"""What is shown unless told."""

Seeds = dict[int, float]
Results = dict[str, dict[str, dict[str, Seeds]]]
"""Value by task, column, variant (the report's label) and seed."""


def read(files: Sequence[Path]) -> Results:
    """Read reports; of a run that several have, the last one counts, and NaN is left out."""
    results: Results = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for file in files:
        with file.open(newline="", encoding="utf-8") as opened:
            for row in csv.DictReader(opened):
                for column in COLUMNS:
                    if row.get(column):
                        seeds = results[row["task"]][column][row["label"]]
                        seeds[int(row["seed"])] = float(row[column])
    return results


def only(results: Results, tasks: Sequence[str], columns: Sequence[str] = SHOWN) -> Results:
    """These columns of these tasks, in this order; of all tasks if none is named."""
    return {task: {c: results[task][c] for c in columns} for task in tasks or results}


def student_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Lower bound, mean and upper bound of Student's 95 % interval; NaN for fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan"), float("nan")
    middle = float(np.mean(values))
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return middle - half, middle, middle + half


def variants_of(results: Results) -> list[str]:
    """Every variant that has a run, as they came."""
    found = (name for columns in results.values() for seeds in columns.values() for name in seeds)
    return [*dict.fromkeys(found)]


def parse_pair(text: str, variants: Sequence[str]) -> tuple[str, str]:
    """Split ``VARIANT-CONTROL``, where names may have hyphens of their own.

    Args:
        text: What the user gave.
        variants: Those that there are.

    Returns:
        Variant and control.

    Raises:
        ValueError: If it is not of two variants that there are.
    """
    for variant in variants:
        if text.startswith(f"{variant}-") and text.removeprefix(f"{variant}-") in variants:
            return variant, text.removeprefix(f"{variant}-")
    raise ValueError(f"{text} is no pair VARIANT-CONTROL of the variants {', '.join(variants)}")


def order(variants: Sequence[str], first: Sequence[str]) -> list[str]:
    """The variants that are named first, then the others as they came."""
    named = [variant for variant in first if variant in variants]
    return [*named, *(variant for variant in variants if variant not in first)]


def table_of_variants(results: Results, first: Sequence[str]) -> list[str]:
    """Mean over seeds with the lowest and the highest; a row a variant."""
    lines = _head("mean [lowest, highest]", results)
    for variant in order(variants_of(results), first):
        cells, seeds = [], set[int]()
        for columns in results.values():
            for variants in columns.values():
                seeds |= variants.get(variant, {}).keys()
                cells.append(_range(variants.get(variant, {})))
        lines.append(f"| `{variant}` | {len(seeds)} | {' | '.join(cells)} |")
    return [*lines, ""]


def table_of_differences(results: Results, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Mean over shared seeds with its interval; a row a pair. Ratios are geometric means."""
    lines = _head("mean over shared seeds [95 % interval]", results)
    for treatment, control in pairs:
        cells, seeds = [], 0
        for columns in results.values():
            for column, variants in columns.items():
                each = compare(variants, treatment, control, ratio=column in RATIOS)
                seeds = max(seeds, len(each))
                cells.append(_interval(each, ratio=column in RATIOS))
        lines.append(f"| `{treatment}` against `{control}` | {seeds} | {' | '.join(cells)} |")
    return [*lines, ""]


def table_of_seeds(results: Results, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """What the intervals were made of: each shared seed's difference or ratio."""
    lines = _head("each shared seed", results)
    for treatment, control in pairs:
        each = [
            compare(variants, treatment, control, ratio=column in RATIOS)
            for columns in results.values()
            for column, variants in columns.items()
        ]
        cells = [", ".join(map(format_number, values)) or "-" for values in each]
        seeds = max(map(len, each))
        lines.append(f"| `{treatment}` against `{control}` | {seeds} | {' | '.join(cells)} |")
    return lines


def compare(variants: dict[str, Seeds], treatment: str, control: str, *, ratio: bool) -> np.ndarray:
    """Differences, or ratios, on the seeds that both variants have, in the order of the seeds."""
    a, b = variants.get(treatment, {}), variants.get(control, {})
    seeds = sorted(a.keys() & b.keys())
    return np.array([a[seed] / b[seed] if ratio else a[seed] - b[seed] for seed in seeds])


def _head(corner: str, results: Results) -> list[str]:
    titles = [f"{task}: {COLUMNS[column]}" for task in results for column in results[task]]
    return [f"| {corner} | seeds | {' | '.join(titles)} |", "|---|---|" + "---|" * len(titles)]


def _range(seeds: Seeds) -> str:
    if not seeds:
        return "-"
    low, middle, high = min(seeds.values()), float(np.mean([*seeds.values()])), max(seeds.values())
    return _text(low, middle, high) if len(seeds) > 1 else _short(middle)


def _interval(each: np.ndarray, *, ratio: bool) -> str:
    sign = "x " if ratio else ""
    if len(each) < 2:
        return "".join(f"{sign}{_short(value)}" for value in each) or "-"
    scaled = student_interval(np.log(each) if ratio else each)
    return sign + _text(*(np.exp(scaled) if ratio else scaled))


def _text(low: float, middle: float, high: float) -> str:
    return f"{_short(middle)} [{_short(low)}, {_short(high)}]"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:.2g}"


def main() -> None:
    """Read, tell, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("reports", nargs="+", type=Path, metavar="SEEDS.csv")
    parser.add_argument("--pairs", nargs="*", default=[], metavar="VARIANT-CONTROL")
    parser.add_argument("--first", nargs="*", default=["adam", "sam"], metavar="VARIANT")
    parser.add_argument("--tasks", nargs="*", default=[], metavar="TASK", help="these alone")
    parser.add_argument(
        "--columns", nargs="*", default=[*SHOWN], choices=[*COLUMNS], metavar="COLUMN"
    )
    parser.add_argument("--out", type=Path, required=True, help="table and figure, no ending")
    args = parser.parse_args()
    results = read(args.reports)
    if missing := set(args.tasks) - results.keys():
        parser.error(f"no run of {', '.join(missing)}; there are runs of {', '.join(results)}")
    results = only(results, args.tasks, args.columns)
    try:
        pairs = [parse_pair(pair, variants_of(results)) for pair in args.pairs]
    except ValueError as error:
        parser.error(str(error))
    text = table_of_variants(results, args.first)
    if pairs:
        text += [*table_of_differences(results, pairs), *table_of_seeds(results, pairs)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_name(f"{args.out.name}.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    draw(results, args.columns, args.first, args.out.with_name(f"{args.out.name}.png"))
    print("\n".join(text))


def draw(results: Results, columns: Sequence[str], first: Sequence[str], path: Path) -> None:
    """A panel for each task and column, in it a row for each variant with its runs."""
    chosen = [(task, column) for task in results for column in columns]
    figure, panels = make_panels(len(chosen), columns=min(3, len(columns)))
    for number, (axes, (task, column)) in enumerate(zip(panels, chosen, strict=True)):
        forest = [
            ForestRow(style.name, [*results[task][column].get(variant, {}).values()], style.color)
            for variant in order(variants_of({task: results[task]}), first)
            for style in [method_style(variant)]
        ]
        left = number % min(3, len(columns)) == 0
        draw_forest(axes, forest, ratio=column in RATIOS, named=left)
        axes.set_title(f"{task}: {COLUMNS[column].removeprefix('largest ')}", fontsize=9)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
