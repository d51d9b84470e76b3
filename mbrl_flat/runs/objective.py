"""The metric that a search looks at: a misspelt one would be noticed when all runs are over."""

from mbrl_flat.errors import UnknownNameError

GROUPS = ("episode", "eval", "optim", "probe", "time", "train")
"""What names of metrics begin with."""
EVALUATION = (
    "length_mean", "normalised_score", "policy_return_mean", "random_return_mean", "return_mean",
    "return_std", "success_rate",
)  # fmt: skip
"""What evaluations measure, of each task where there are several; agents and probes are free."""


def check_objective(name: str) -> None:
    """Refuse an objective that no run can have.

    Args:
        name: Of the metric.

    Raises:
        UnknownNameError: If there is no such group of metrics, or no such metric of an evaluation.
    """
    group, _, rest = name.partition("/")
    task, _, metric = rest.rpartition("/")
    prefix = f"eval/{task}/" if group == "eval" and task else "eval/"
    known = [f"{prefix}{metric}" for metric in EVALUATION]
    if group not in GROUPS or not rest:
        known += [f"{word}/..." for word in GROUPS]
    elif group != "eval" or metric in EVALUATION:
        return
    raise UnknownNameError("metric", name, known, where="objective")
