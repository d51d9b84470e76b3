"""The keys of the commands; those of runs and studies are described beside their code."""

from dataclasses import dataclass
from typing import Any, get_type_hints

from mbrl_flat.runs.config import RunConfig
from mbrl_flat.studies.command import SupervisedConfig


@dataclass(kw_only=True)
class EvaluateConfig:
    """What ``mbrl-flat-evaluate`` does.

    Attributes:
        run: Folder of the run.
        pretrained: Name of a pretrained agent, in place of a run.
        checkpoint: ``latest`` or ``best``; without a run, a file that the authors of an agent
            published.
        episodes: Episodes to play.
        seed: Determines the episodes; the same seed plays the same ones again.
        video: Record the first one.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: CPU threads of torch; 0 chooses by the machine.
        progress: Show a progress bar.
        debug: Show the traceback of an error beside its message.
        trust: Modules outside of mbrl_flat whose code the run's folder may execute.
        env: Environment of a published checkpoint.
        agent: Agent of a published checkpoint.
    """

    run: str | None = None
    pretrained: str | None = None
    checkpoint: str = "latest"
    episodes: int = 10
    seed: int = 1000
    video: bool = False
    device: str = "auto"
    threads: int = 0
    progress: bool = True
    debug: bool = False
    trust: Any = None
    env: Any = None
    agent: Any = None


@dataclass(kw_only=True)
class ProbeConfig:
    """What ``mbrl-flat-probe`` does.

    Attributes:
        run: Folder of the run.
        run_dir: Where videos go; the run's folder.
        probe: What is measured.
        episodes: Episodes of probes that play.
        seed: Determines batches and episodes.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: CPU threads of torch; 0 chooses by the machine.
        debug: Show the traceback of an error beside its message.
        trust: Modules outside of mbrl_flat whose code the run's folder may execute.
    """

    run: str | None = None
    run_dir: str | None = None
    probe: Any = None
    episodes: int = 10
    seed: int = 1000
    device: str = "auto"
    threads: int = 0
    debug: bool = False
    trust: Any = None


@dataclass(kw_only=True)
class ExportConfig:
    """What ``mbrl-flat-export`` does.

    Attributes:
        run: Folder of the run.
        pretrained: Name of a pretrained agent, in place of a run.
        format: ``torch`` (``torch.export``) or ``onnx``.
        checkpoint: ``latest`` or ``best``.
        rows: Observations that a program takes at once.
        dtype: Precision of the networks that value plans, ``float32`` or ``bfloat16``; the run's
            by default.
        out: Folder of the files; ``export`` in the run's, or ``runs/pretrained/NAME/export``, by
            default.
        threads: CPU threads of torch; 0 chooses by the machine.
        debug: Show the traceback of an error beside its message.
        trust: Modules outside of mbrl_flat whose code the run's folder may execute.
    """

    run: str | None = None
    pretrained: str | None = None
    format: str = "torch"
    checkpoint: str = "latest"
    rows: int = 1
    dtype: str | None = None
    out: str | None = None
    threads: int = 0
    debug: bool = False
    trust: Any = None


SCHEMAS: dict[str, type[Any]] = {
    "train": RunConfig,
    "evaluate": EvaluateConfig,
    "probe": ProbeConfig,
    "export": ExportConfig,
    "supervised": SupervisedConfig,
}
"""The settings of each command."""


def annotation_of(schema: type[Any], key: str) -> Any:
    """The annotation of a setting by its dotted name; ``Any`` where the schema says nothing."""
    hint: Any = schema
    for name in key.split("."):
        hint = get_type_hints(hint).get(name, Any) if isinstance(hint, type) else Any
    return hint
