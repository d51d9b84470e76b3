"""A mirror of the metrics at Weights & Biases; never the only copy, never a reason to stop."""

import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mbrl_flat.errors import MissingExtraError

WandbMode = Literal["auto", "offline", "online", "disabled"]
"""``auto`` follows the environment variable ``WANDB_MODE`` and is offline without it."""

WANDB_MODES = ("auto", "offline", "online", "disabled")
_log = logging.getLogger(__name__)


class WandbLogger:
    """Mirrors every row to one W&B run below ``folder/wandb``.

    The run's id is kept in ``folder/wandb/run_id``: a resumed run continues the same W&B run.
    Offline runs send nothing; ``wandb sync`` uploads them later. Whatever fails inside W&B is
    logged once as a warning, and the mirror is silent from then on.

    Args:
        folder: The folder of the run.
        config: The resolved configuration.
        mode: Whether to talk to the service; ``online`` without a login falls back to offline.
        project: Where the run is listed.
        entity: Whose project it is; the default account's if absent.
        name: Its title; the folder's name unless given.
        group: What it is listed under, such as all seeds of one setting.
        job_type: Kind of the run within its group.
        tags: Words to find it by.

    Raises:
        MissingExtraError: If wandb is not installed and ``mode`` is not ``disabled``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: Mapping[str, Any],
        mode: WandbMode = "auto",
        project: str = "mbrl-flat",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self._run: Any = None
        if mode == "disabled" or (mode == "auto" and os.environ.get("WANDB_MODE") == "disabled"):
            return
        self._guard(
            lambda: self._start(
                folder,
                config=dict(config),
                mode=mode,
                project=project,
                entity=entity,
                name=name or folder.name,
                group=group,
                job_type=job_type,
                tags=list(tags),
            )
        )

    @property
    def active(self) -> bool:
        """Whether rows still reach W&B."""
        return self._run is not None

    def write(self, metrics: Mapping[str, float], *, step: int, frame: int) -> None:
        """Mirror one row; its x axis is ``step``."""
        row = {"step": step, "frame": frame, **metrics}
        # W&B's own counter may only grow; a resumed run repeats the steps since its checkpoint.
        self._guard(lambda: self._run.log(row) if self._run is not None else None)

    def close(self) -> None:
        """Finish the W&B run."""
        self._guard(lambda: self._run.finish() if self._run is not None else None)
        self._run = None

    def _guard(self, call: Callable[[], object]) -> None:
        try:
            call()
        except MissingExtraError:
            raise
        except Exception as error:
            # A mirror must not end a run of days, whatever the service or its client throws.
            self._run = None
            _log.warning("Weights & Biases is off for the rest of this run: %s", error)

    def _start(
        self, folder: Path, *, config: dict[str, Any], mode: WandbMode, **labels: Any
    ) -> None:
        try:
            import wandb  # noqa: PLC0415  # slow to import, and not every run mirrors
        except ImportError as error:
            raise MissingExtraError(
                "Weights & Biases is not installed; set wandb.mode=disabled, or install it", "wandb"
            ) from error
        online = mode == "online" or (mode == "auto" and os.environ.get("WANDB_MODE") == "online")
        if online and wandb.api.api_key is None:
            _log.warning("Not logged in at Weights & Biases, so the mirror is offline.")
            online = False
        self._run = wandb.init(
            dir=str(folder),
            id=_run_id(folder / "wandb" / "run_id"),
            config=config,
            mode="online" if online else "offline",
            # Offline there is nobody to ask whether the run exists; the id is what joins them.
            resume="allow" if online else None,
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
            **labels,
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")


def _run_id(path: Path) -> str:
    """The id in ``path``; a new one is written there first if there is none."""
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    run_id = uuid.uuid4().hex[:12]
    path.write_text(run_id + "\n", encoding="utf-8")
    return run_id
