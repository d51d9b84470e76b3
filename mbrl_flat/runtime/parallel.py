"""The same work on many items, by as many processes as there are cores."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from mbrl_flat.errors import UserError

A = TypeVar("A")
B = TypeVar("B")
_MOST_PROCESSES = 8
"""A container may have fewer cores than it sees, and each process takes memory."""


def map_in_processes(function: Callable[[A], B], items: Sequence[A], *, share: int = 1) -> list[B]:
    """Apply a function to each item, each process to as many of them.

    On Linux, with at least two cores and two shares, forked processes do a part of it; elsewhere
    this process does all. Nothing is left running if this process is killed.

    Args:
        function: Of one item. It runs in another process, so only what it returns is kept.
        items: What it is applied to.
        share: So many items are worth a process of their own.

    Returns:
        The results in the order of the items.

    Raises:
        UserError: If a process was killed.
        Exception: What the function raised for one of the items.
    """
    count = min(len(items) // share, _MOST_PROCESSES)
    if sys.platform != "linux" or (count := min(count, len(os.sched_getaffinity(0)))) < 2:
        return [function(item) for item in items]
    context = get_context("fork")
    receivers: list[Connection] = []
    for number in range(1, count):
        receiver, sender = context.Pipe(duplex=False)
        receivers.append(receiver)
        arguments = (sender, receivers, function, items[number::count])
        context.Process(target=_work, args=arguments, daemon=True).start()
        sender.close()
    results: list[Any] = [None] * len(items)
    results[::count] = [function(item) for item in items[::count]]
    for number, receiver in enumerate(receivers, start=1):
        try:
            answer = receiver.recv()
        except EOFError as error:
            raise UserError(
                "A process was killed, which happens where memory runs out; give it less to do."
            ) from error
        if isinstance(answer, Exception):
            raise answer
        results[number::count] = answer
    return results


def _work(
    sender: Connection, receivers: list[Connection], function: Callable[[Any], Any], items: Any
) -> None:
    """Send the results, or the error, to the process that began this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered once
    for receiver in receivers:
        receiver.close()  # else a pipe would have a reader when the other process is gone
    try:
        answer: Any = [function(item) for item in items]
    except UserError as error:
        answer = UserError(str(error))  # its kinds are made of other arguments than their text
    except Exception as error:
        answer = error
    with suppress(BrokenPipeError):
        sender.send(answer)
