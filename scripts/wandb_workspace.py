"""Make the project's comparison workspace at Weights & Biases, or print it.

python scripts/wandb_workspace.py --print                      # no connection, no account
python scripts/wandb_workspace.py --entity ME --project mbrl_flat

It has the charts of a report, live: returns, value errors, sharpness and gradient evaluations, each
averaged over the seeds of one setting: two radii of SAM are two curves. What the charts group by,
``mbrl_flat/logging/labels.py`` gives every run.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from mbrl_flat.errors import MissingExtraError, UserError

SECTIONS: Mapping[str, Sequence[tuple[str, tuple[str, ...], bool]]] = {
    "Returns": (
        ("episode return", ("eval/return_mean",), False),
        ("normalised score", ("eval/normalised_score",), False),
        ("success rate", ("eval/success_rate",), False),
        ("return of the policy prior", ("eval/policy_return_mean",), False),
    ),
    "Value error": (
        ("NRMSE", ("probe/value/rmse_normalised",), False),
        ("bias, units of return", ("probe/value/bias",), False),
        ("rank correlation", ("probe/value/spearman",), False),
        ("bias of the planner", ("probe/planner/bias",), False),
    ),
    "Sharpness": (
        ("largest eigenvalue of the Hessian", ("probe/sharpness/lambda_max",), True),
        ("SAM gap", ("probe/sharpness/sam_gap",), True),
        ("rho times the gradient norm", ("probe/sharpness/first_order",), True),
        ("norm of the weights", ("probe/sharpness/param_norm",), False),
    ),
    "Evaluations": (
        ("gradient evaluations in all", ("optim/evaluations_total",), False),
        ("gradient evaluations per update", ("optim/evaluations",), False),
        ("steps per second", ("time/steps_per_second",), False),
    ),
}
"""Charts by section: title, metrics, whether the axis is logarithmic."""

SCATTERS = (
    ("probe/sharpness/lambda_max", "eval/return_mean"),
    ("probe/value/rmse_normalised", "eval/return_mean"),
)
"""Last values of two metrics, one dot a run."""

GROUP_BY = "group_name"
"""Key of a run's configuration that every chart is grouped by."""


def build_workspace(*, entity: str, project: str, name: str = "Comparison of optimizers") -> Any:
    """Build the workspace; nothing is sent until ``save()`` is called on it.

    Args:
        entity: Account or team that owns the project.
        project: The project.
        name: Title of the workspace.

    Returns:
        A ``wandb_workspaces.workspaces.Workspace``.

    Raises:
        MissingExtraError: If wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr  # noqa: PLC0415  # an extra
        import wandb_workspaces.workspaces as ws  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("The workspace needs wandb-workspaces", "dashboards") from error
    sections = [
        ws.Section(name=title, panels=[_line(wr, *chart) for chart in charts], is_open=True)
        for title, charts in SECTIONS.items()
    ]
    dots: list[Any] = [
        wr.ScatterPlot(
            title=f"{y} against {x}", x=wr.SummaryMetric(x), y=wr.SummaryMetric(y), regression=True
        )
        for x, y in SCATTERS
    ]
    sections.append(ws.Section(name="Sharpness and return", panels=dots, is_open=True))
    return ws.Workspace(
        name=name,
        entity=entity,
        project=project,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=100),
        runset_settings=ws.RunsetSettings(groupby=[ws.Config("task"), ws.Config(GROUP_BY)]),
    )


def describe(workspace: Any) -> str:
    """The workspace as the JSON that would be sent, readable without a connection."""
    return json.dumps(workspace._to_model().model_dump(mode="json", by_alias=True), indent=2)


def _line(wr: ModuleType, title: str, metrics: tuple[str, ...], log: bool) -> Any:
    return wr.LinePlot(
        title=title,
        x="step",
        y=list(metrics),
        log_y=log,
        groupby=wr.Config(GROUP_BY),
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=100,
    )


def main() -> int:
    """Build the workspace; print it or save it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entity", help="account or team that owns the project")
    parser.add_argument("--project", default="mbrl_flat")
    parser.add_argument("--name", default="Comparison of optimizers", help="title")
    parser.add_argument("--print", action="store_true", dest="show", help="send nothing")
    arguments = parser.parse_args()
    if arguments.entity is None and not arguments.show:
        parser.error("say whose project it is by --entity, or --print it")
    try:
        workspace = build_workspace(
            entity=arguments.entity or "entity", project=arguments.project, name=arguments.name
        )
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if arguments.show:
        print(describe(workspace))
    else:
        print(workspace.save().url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
