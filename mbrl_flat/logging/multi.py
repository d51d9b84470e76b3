"""Several loggers as one."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mbrl_flat.logging.jsonl import JsonlLogger

if TYPE_CHECKING:  # the protocols import torch, which readers of metrics do without
    from mbrl_flat.interfaces import Logger


class MultiLogger:
    """Writes to the record of the run first, then to its mirrors.

    The record alone decides where a run resumes: ``position`` and ``truncate`` are its own.

    Args:
        record: The source of truth.
        mirrors: Any other loggers, in the order in which they are written.
    """

    def __init__(self, record: JsonlLogger, *mirrors: "Logger") -> None:
        self.record = record
        self.mirrors = mirrors

    @property
    def position(self) -> int:
        """Bytes in the record."""
        return self.record.position

    def truncate(self, position: int) -> None:
        """Cut the record; mirrors keep what they have shown."""
        self.record.truncate(position)

    def write(self, metrics: Mapping[str, float], *, step: int, frame: int) -> None:
        """Give one row to all."""
        self.record.write(metrics, step=step, frame=frame)
        for mirror in self.mirrors:
            mirror.write(metrics, step=step, frame=frame)

    def close(self) -> None:
        """Close all, the record last and also when a mirror fails."""
        with ExitStack() as stack:
            stack.callback(self.record.close)
            for mirror in self.mirrors:
                stack.callback(mirror.close)
