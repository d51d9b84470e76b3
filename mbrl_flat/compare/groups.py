"""Which runs are seeds of the same thing, and what makes others hard to compare."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mbrl_flat.analysis.plot_style import METHODS, PALETTE, VARIANTS, method_style
from mbrl_flat.compare.runs import Run, task_names
from mbrl_flat.errors import UnknownNameError
from mbrl_flat.logging.labels import BOOKKEEPING, RENAMED
from mbrl_flat.runtime.settings import format_value, has_prefix

_NUM_DASHES = 3
_MEASUREMENT = ("eval_episodes", "probes")
_ENVIRONMENT = ("git_revision", "device_name", "packages.torch", "torch_threads")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ by nothing but the seed, or by nothing that the user groups by.

    Attributes:
        task: Task of all of them; ``env/task`` where several environments have one of that name.
        agent: Agent of all of them; several are joined by a slash.
        optimizer: Optimizer of all of them; likewise.
        label: What tells this group from the others of the comparison.
        runs: In the order of the seeds; one a seed unless the user groups by fewer settings.
    """

    task: str
    agent: str
    optimizer: str
    label: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, each once, in ascending order."""
        return tuple(sorted({run.seed for run in self.runs}))


@dataclass(frozen=True, kw_only=True)
class GroupStyle:
    """How a group is drawn.

    Attributes:
        label: Label of the group.
        name: The label with the display name of its method.
        number: Place among all groups, from 0.
        color: Hexadecimal RGB.
        dash: 0 for solid lines, 1 and 2 for dashed ones where a colour is used again.
    """

    label: str
    name: str
    number: int
    color: str
    dash: int

    @property
    def classes(self) -> str:
        """Classes of everything that has its colour."""
        return f"c{self.number} d{self.dash}"


def group_styles(groups: Sequence[Group]) -> dict[str, GroupStyle]:
    """Choose how groups are drawn: in the colour of their method, or by a palette.

    The palette serves where a method has more groups than there are kinds of lines, such as the
    radii of a sweep.

    Args:
        groups: Groups of runs, one for each setting and task.

    Returns:
        Style by label, in the order of the groups.
    """
    methods = {group.label: group.optimizer for group in reversed(groups)}
    labels = [*dict.fromkeys(group.label for group in groups)]
    colors = [method_style(_method(label, methods)).color for label in labels]
    if max(map(colors.count, colors), default=0) > _NUM_DASHES:
        colors = [PALETTE[number % len(PALETTE)] for number in range(len(labels))]
    styles: dict[str, GroupStyle] = {}
    for number, (label, color) in enumerate(zip(labels, colors, strict=True)):
        method = _method(label, methods)
        words = [method_style(method).name if word == method else word for word in label.split()]
        styles[label] = GroupStyle(
            label=label,
            name=" ".join(words),
            number=number,
            color=color,
            dash=colors[:number].count(color) % _NUM_DASHES,
        )
    return styles


def _method(label: str, methods: Mapping[str, str]) -> str:
    """What gives a group its colour: a known variant that it is called by, or its optimizer."""
    return label if label in METHODS or label in VARIANTS else methods[label]


def group_runs(runs: Sequence[Run], *, by: Sequence[str] = ()) -> tuple[list[Group], list[str]]:
    """Put seeds of the same setting together.

    Two runs belong together when task, agent, optimizer and every setting agree, apart from those
    that only say where, how long and how often a run was measured. A setting that only some runs
    have tells them from the others. Tasks are never joined, as their returns have no common scale.

    Args:
        runs: All runs.
        by: Settings such as ``optimizer``, ``agent`` or ``optimizer.rho``, if they alone shall
            tell groups apart.

    Returns:
        Groups by task, and a note for each run that was left out.

    Raises:
        UnknownNameError: If no run has one of these settings.
    """
    by = [RENAMED.get(key, key) for key in by]
    one_agent = len({run.names["agent"] for run in runs}) == 1
    optimizer_keys = _keys_by(
        runs, ("agent", "optimizer"), lambda key: has_prefix(key, ("optimizer",))
    )
    other_keys = _keys_by(
        runs, ("env", "task", "agent"), lambda key: not has_prefix(key, ("optimizer", *BOOKKEEPING))
    )
    tasks = task_names(runs)
    buckets: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        keys = sorted(optimizer_keys[_name(run, ("agent", "optimizer"))]) + sorted(
            other_keys[_name(run, ("env", "task", "agent"))]
        )
        settings = [f"{_short(key)}={_text(run, key)}" for key in keys]
        label = " ".join([] if one_agent else [run.names["agent"]])
        label = " ".join(filter(None, [label, run.names["optimizer"], *settings]))
        names = tasks[run.task_key], *_name(run, ("agent", "optimizer"))
        # What the user tells groups apart by never makes two runs one.
        buckets.setdefault((*names, label, *_values(run, by)), []).append(run)
    groups, notes = [], []
    for (task, agent, optimizer, label, *_), members in buckets.items():
        kept, dropped = _one_run_a_seed(members)
        notes += [
            f"{run.folder.name} was left out: seed {run.seed} of {label} on {task} has a run that "
            "went as far or further."
            for run in dropped
        ]
        groups.append(
            Group(task=task, agent=agent, optimizer=optimizer, label=label, runs=tuple(kept))
        )
    if by:
        groups = _joined(groups, by)
    return sorted(groups, key=lambda group: (group.task, _natural(group.label))), notes


def _joined(groups: Sequence[Group], by: Sequence[str]) -> list[Group]:
    """Groups that agree in the settings ``by`` made one."""
    known = {key for group in groups for run in group.runs for key in (*run.config, *run.names)}
    for key in by:
        if key not in known:
            raise UnknownNameError("setting to group by", key, known)
    buckets: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        run = group.runs[0]
        values = zip(by, _values(run, by), strict=True)
        words = [text if key in run.names else f"{_short(key)}={text}" for key, text in values]
        buckets.setdefault((group.task, " ".join(words)), []).append(group)
    return [
        Group(
            task=task,
            agent="/".join(sorted({group.agent for group in members})),
            optimizer="/".join(sorted({group.optimizer for group in members})),
            label=label,
            runs=tuple(
                sorted((run for group in members for run in group.runs), key=lambda run: run.seed)
            ),
        )
        for (task, label), members in buckets.items()
    ]


def differing_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs, as text for each run; a dash where absent."""
    tables: list[dict[str, Any]] = []
    for run in runs:
        known = {key: run.environment[key] for key in _ENVIRONMENT if key in run.environment}
        tables.append({**run.config, **{f"environment.{key}": v for key, v in known.items()}})
    hidden = ("run_dir", "seed", "names", "resume", "wandb")
    keys = sorted({key for table in tables for key in table if not has_prefix(key, hidden)})
    rows = {
        key: [format_value(table[key]) if key in table else "-" for table in tables] for key in keys
    }
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def comparability_notes(groups: Sequence[Group]) -> list[str]:
    """Say what makes groups of one task unequal beyond their optimizer; silence would mislead."""
    notes: list[str] = []
    for task in dict.fromkeys(group.task for group in groups):
        members = [group for group in groups if group.task == task]
        runs = [run for group in members for run in group.runs]
        lengths = {run.last_evaluation for run in runs if run.last_evaluation > 0}
        if len(lengths) > 1:
            notes.append(
                f"{task}: runs end between {min(lengths):,.0f} and {max(lengths):,.0f} steps; "
                "compare the column at the common point."
            )
        notes += [
            f"{task}: {run.folder.name} was not evaluated after its start, so it does not count "
            "for the common point and has no return there."
            for run in runs
            if not run.last_evaluation > 0
        ]
        repeats = {run.action_repeat for run in runs if np.isfinite(run.action_repeat)}
        if len(repeats) > 1:
            repeats_shown = ", ".join(f"{repeat:g}" for repeat in sorted(repeats))
            notes.append(
                f"{task}: action repeats differ ({repeats_shown}), so a step is not the same "
                "everywhere; use --x frames."
            )
        notes += [
            f"{task}: {key} differs ({', '.join(values)}){effect}"
            for key, values, effect in _unequal(runs)
        ]
        seeds = {group.seeds for group in members}
        if len(seeds) > 1:
            notes.append(
                f"{task}: not every group has the same seeds; pairs use shared seeds only."
            )
    return notes


def _unequal(runs: Sequence[Run]) -> Iterable[tuple[str, list[str], str]]:
    """Settings of one task that differ although the method does not ask for it.

    What another agent has no use for is not absent there; a run of the same agent may lack it.
    """
    keys: dict[str, set[str]] = {}
    for run in runs:
        keys.setdefault(run.names["agent"], set()).update(run.config)
    for key in sorted(set.union(*keys.values())):
        having = [run for run in runs if key in keys[run.names["agent"]]]
        values = sorted({_text(run, key) for run in having}, key=_natural)
        if len(values) < 2:
            continue
        if has_prefix(key, _MEASUREMENT):
            yield (
                key,
                values,
                ": not comparable in what depends on it, settings differ.",
            )
        elif not has_prefix(key, ("optimizer", *BOOKKEEPING)):
            yield key, values, "; these groups differ by more than the optimizer."


def _keys_by(runs: Sequence[Run], names: tuple[str, ...], wanted: Any) -> dict[Any, set[str]]:
    """For each combination of names, the wanted settings that are not the same in all its runs."""
    buckets: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        buckets.setdefault(_name(run, names), []).append(run)
    return {
        bucket: {
            key
            for key in set.union(*({*run.config} for run in members))
            if wanted(key) and len({_text(run, key) for run in members}) > 1
        }
        for bucket, members in buckets.items()
    }


def _one_run_a_seed(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Keep the run of each seed that went furthest; name the others."""
    order = sorted(runs, key=lambda run: (run.seed, -np.nan_to_num(run.last_evaluation, nan=-1.0)))
    kept: dict[int, Run] = {}
    for run in order:
        kept.setdefault(run.seed, run)
    chosen = list(kept.values())
    return chosen, [run for run in order if not any(run is other for other in chosen)]


def _name(run: Run, keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(run.names.get(key, "") for key in keys)


def _text(run: Run, key: str) -> str:
    """A setting for people; a dash where the run does not have it."""
    return format_value(run.config[key]) if key in run.config else "-"


def _values(run: Run, keys: Sequence[str]) -> list[str]:
    return [run.names.get(key, _text(run, key)) for key in keys]


def _short(key: str) -> str:
    return key.removeprefix("optimizer.")


def _natural(text: str) -> tuple[tuple[str, float], ...]:
    """Sort key that puts rho=0.01 before rho=0.1, and words before words."""
    return tuple((part.rstrip("0123456789.e-"), _number(part)) for part in text.split())


def _number(text: str) -> float:
    try:
        return float(text.rpartition("=")[2])
    except ValueError:
        return 0.0
