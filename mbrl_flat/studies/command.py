"""``mbrl-flat-supervised experiment=NAME``: run a study in a folder, show what it says."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mbrl_flat.logging.console import say
from mbrl_flat.runs.folder import create_run_folder, writing
from mbrl_flat.runs.provenance import write_environment
from mbrl_flat.runtime.device import use_threads
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.studies.framework import Claim, Study, check_data, corrected, run_study
from mbrl_flat.studies.framework.report import format_interval


@dataclass(kw_only=True)
class SupervisedConfig:
    """Everything that defines a run of a study.

    Attributes:
        study: What to build as the study; its settings are fields of that class.
        presets: Settings of the study that differ in another preset, by its name.
        name: Name of the experiment; filled in by the command.
        preset: ``default``, or ``ci``: small enough for a test.
        run_dir: The run's folder; by default ``runs/`` and a name. If it holds a run of the same
            settings, that one resumes.
        resume: Folder of a run to resume.
        trust: Modules outside of mbrl_flat whose code a resumed run's folder may execute; one name
            or a list.
        threads: CPU threads of torch; 0 chooses by the machine. Results are exactly reproducible
            for an equal number of threads.
        progress: Show a progress bar.
        debug: Show the traceback of an error beside its message.
    """

    study: Any = field(default_factory=dict)
    presets: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    preset: str = "default"
    run_dir: str | None = None
    resume: str | None = None
    trust: Any = None
    threads: int = 1
    progress: bool = True
    debug: bool = False


def run_supervised(study: Study, config: SupervisedConfig, *, yaml: str) -> int:
    """Run or resume a study and print its claims.

    Args:
        study: What to compute.
        config: Where and how.
        yaml: The configuration as text, for ``config.yaml``.

    Returns:
        Exit status: 0, or 130 after Ctrl-C; then what was computed is kept.
    """
    use_threads(config.threads)
    check_data(study)
    folder, new = _folder(config)
    with writing(folder, new=new):
        outcome = run_study(
            study,
            folder,
            command=_command(config),
            progress=config.progress and sys.stderr.isatty(),
            on_start=lambda: _describe(folder, yaml),
            on_row=None if sys.stderr.isatty() else lambda cell: say(cell.label),
        )
    if outcome.exit_status:
        say(f"stopped; resume with mbrl-flat-supervised resume={folder}")
        return outcome.exit_status
    say(*_closing_lines(study.claims(outcome.rows), outcome.written))
    return 0


def _folder(config: SupervisedConfig) -> tuple[Path, bool]:
    """The folder of the study, and whether this start made it."""
    if config.resume:
        return Path(config.resume), False
    if config.run_dir is not None and (Path(config.run_dir) / "study.json").is_file():
        return Path(config.run_dir), False
    default = f"runs/{config.name}_{config.preset}_{time.strftime('%Y%m%d-%H%M%S')}"
    folder = create_run_folder(Path(config.run_dir or default), exact=config.run_dir is not None)
    return folder, True


def _describe(folder: Path, yaml: str) -> None:
    say(f"run folder: {folder}")
    if not (folder / "config.yaml").exists():
        write_text_atomically(folder / "config.yaml", yaml)
        write_environment(folder, torch.device("cpu"))


def _command(config: SupervisedConfig) -> str:
    preset = "" if config.preset == "default" else f" preset={config.preset}"
    return f"mbrl-flat-supervised experiment={config.name}{preset}"


def _closing_lines(claims: Sequence[Claim], written: Sequence[Path]) -> list[str]:
    lines = ["claims"]
    for claim in corrected(claims):
        numbers = format_interval(claim.interval)
        lines.append(f"  {claim.name:4} {claim.corrected:13} {numbers:32} {claim.statement}")
    return [*lines, "files", *(f"  {path}" for path in written)]
