"""What a run says when it is over."""

from pathlib import Path

from mbrl_flat.logging.jsonl import read_metrics

_RESULTS = (
    ("step", "steps"),
    ("frame", "frames"),
    ("eval/random_return_mean", "return, random actions"),
    ("eval/return_mean", "return, learned"),
    ("eval/return_std", "  its standard deviation"),
    ("probe/value/rmse_normalised", "value error, normalised RMSE"),
    ("probe/value/bias", "value error, bias"),
    ("probe/sharpness/sam_gap", "SAM gap"),
    ("probe/sharpness/lambda_max", "largest Hessian eigenvalue"),
    ("optim/evaluations_total", "gradient evaluations"),
)


def summarize_run(folder: Path, *, complete: bool = True) -> list[str]:
    """Results as a table, the files written, and how to resume an unfinished run."""
    found: dict[str, float] = {}
    for row in read_metrics(folder / "metrics.jsonl"):
        found |= row
    table = [f"  {label:28} {found[name]:12.4g}" for name, label in _RESULTS if name in found]
    plots = sorted(str(path) for path in (folder / "plots").glob("*.png"))
    files = [str(folder / "metrics.jsonl"), str(folder / "checkpoints" / "latest.pt"), *plots]
    lines = ["results" if complete else "results so far", *table]
    lines += ["files", *(f"  {file}" for file in files)]
    if not complete:
        lines.append(f"stopped before its end; resume with mbrl-flat-train resume={folder}")
    return lines
