"""Compute what is missing of a study, one cell after the other, then write its report."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mbrl_flat.errors import DivergedError, UserError
from mbrl_flat.runs.renamed import with_current_names
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.runtime.interrupts import Interrupted, StopRequest, cancellable, stop_requests
from mbrl_flat.runtime.plain_files import read_json
from mbrl_flat.runtime.seeding import restored_rng, seed_everything
from mbrl_flat.studies.framework.report import write_report
from mbrl_flat.studies.framework.rows import DIVERGED, SECONDS, RowFile, Trial, TrialRows
from mbrl_flat.studies.framework.study import Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyOutcome:
    """How a run of a study ended.

    Attributes:
        rows: Everything computed, in this run or before.
        written: Files of the report; none if the run was stopped.
        computed: Cells computed in this run.
        exit_status: 0, or what a shell expects after Ctrl-C (130) or SIGTERM (143).
    """

    rows: TrialRows
    written: list[Path]
    computed: int
    exit_status: int


def run_study(
    study: Study,
    folder: Path,
    *,
    command: str,
    progress: bool = False,
    on_start: Callable[[], None] | None = None,
    on_row: Callable[[Trial], None] | None = None,
) -> StudyOutcome:
    """Run or resume a study; a cell that is in ``rows.jsonl`` is not computed again.

    Args:
        study: What to compute.
        folder: Where its files are; made if it is absent.
        command: How it is run again, for its page.
        progress: Show a progress bar.
        on_start: Called once the folder is known to be that of this study.
        on_row: Called after each computed cell.

    Returns:
        TrialRows and files.

    Raises:
        UserError: If the folder holds the rows of other settings, or the settings name no trial.
    """
    if not study.cells(TrialRows()):
        raise UserError(
            "These settings leave the study without a trial; give each list a value and each "
            "count at least 1."
        )
    folder.mkdir(parents=True, exist_ok=True)
    _claim_folder(study, folder)
    if on_start is not None:
        on_start()
    file = RowFile(folder / "rows.jsonl")
    computed = 0
    bar = tqdm(disable=not progress, dynamic_ncols=True, unit="run", leave=False)

    def done(cell: Trial) -> None:
        bar.set_description(cell.label)
        bar.update()
        if on_row is not None:
            on_row(cell)

    with stop_requests() as stop, bar:
        while not stop.exit_status:
            cells = _known(study, file)
            missing = [cell for cell in cells if cell not in file]
            bar.total, bar.n = len(cells), len(cells) - len(missing)
            if not missing:
                break
            computed += _compute(study, missing, file, stop, done)
    rows = file.select(_known(study, file))
    written = write_report(study, rows, folder, command=command) if not stop.exit_status else []
    return StudyOutcome(rows=rows, written=written, computed=computed, exit_status=stop.exit_status)


def check_data(part: Any) -> None:
    """Refuse a study whose data or packages are missing, before anything is written.

    Args:
        part: The study, or what one of its fields holds. Parts with a method ``check_data`` say
            what is missing.

    Raises:
        UserError: If something is missing.
    """
    if callable(check := getattr(part, "check_data", None)):
        check()
    if dataclasses.is_dataclass(part):
        part = [getattr(part, field.name) for field in dataclasses.fields(part)]
    if isinstance(part, Mapping):
        part = list(part.values())
    for inner in part if isinstance(part, list | tuple) else ():
        check_data(inner)


def settings_of(study: Study) -> dict[str, Any]:
    """Type and settings of a study, as JSON gives them back."""
    if not dataclasses.is_dataclass(study) or isinstance(study, type):
        raise TypeError(f"A study is a dataclass instance, got {study!r}.")
    settings = {"study": type(study).__name__, **dataclasses.asdict(study)}
    return json.loads(json.dumps(settings))


def _claim_folder(study: Study, folder: Path) -> None:
    """Write the study's settings, or see to it that those of the folder are the same."""
    path, settings = folder / "study.json", settings_of(study)
    if not path.exists():
        write_text_atomically(path, json.dumps(settings, indent=2) + "\n")
        return
    there = with_current_names(read_json(path))
    settings = _like(settings, there)
    differing = sorted(
        key for key in settings.keys() | there.keys() if settings.get(key) != there.get(key)
    )
    if differing:
        raise UserError(
            f"{folder} holds a study with other settings ({', '.join(differing)}); choose another "
            f"run_dir, or give the same settings to resume it."
        )


def _like(ours: Any, theirs: Any) -> Any:
    """Leave out empty settings that a folder of an earlier version does not have."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return ours
    kept = {key: value for key, value in ours.items() if key in theirs or value}
    return {key: _like(value, theirs.get(key)) for key, value in kept.items()}


def _known(study: Study, file: RowFile) -> list[Trial]:
    """Cells of all stages that are complete, and of the first one that is not."""
    cells: list[Trial] = []
    while True:
        rows = file.select(cells)
        more = list(study.cells(rows))
        if len(more) <= len(cells) or any(cell not in file for cell in more):
            return more
        cells = more


def _compute(
    study: Study,
    missing: list[Trial],
    file: RowFile,
    stop: StopRequest,
    done: Callable[[Trial], None],
) -> int:
    """Compute cells until all are there or a signal came; return how many were."""
    for number, cell in enumerate(missing):
        if stop.exit_status:
            return number
        start = time.process_time()
        with restored_rng():
            seed_everything(cell.get("seed", 0))
            try:
                with cancellable(lambda: stop.signal is not None):
                    measured = dict(study.measure(cell))
            except Interrupted:
                return number
            except DivergedError as error:
                measured = {DIVERGED: error.step}
        file.append(cell, {**measured, SECONDS: round(time.process_time() - start, 3)})
        done(cell)
    return len(missing)
