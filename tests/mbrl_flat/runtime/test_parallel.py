"""Work that several processes share: the same results and errors as in one."""

import os
import signal
import sys

import pytest

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.runtime.parallel import map_in_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked processes are for Linux")


@pytest.fixture(autouse=True)
def _three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})


def _with_process(item: int) -> tuple[int, int]:
    return item, os.getpid()


@pytest.mark.parametrize(("items", "processes"), [(0, 1), (1, 1), (2, 2), (3, 3), (20, 3)])
def test_results_stand_in_the_order_of_the_items(items: int, processes: int) -> None:
    results = map_in_processes(_with_process, range(items))
    assert [item for item, _ in results] == list(range(items))
    assert len({process for _, process in results}) == min(items, processes)


def test_few_items_are_left_to_this_process() -> None:
    assert map_in_processes(_with_process, range(7), share=4) == [
        (item, os.getpid()) for item in range(7)
    ]


def test_there_are_never_more_than_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert len({process for _, process in map_in_processes(_with_process, range(100))}) == 8


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize(
    "error",
    [UserError("bad"), UnknownNameError("task", "wlak", ["walk"]), OSError(28, "No space left")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_any_process_is_raised_here(where: int, error: Exception) -> None:
    def work(item: int) -> None:
        if item == where:
            raise error

    with pytest.raises(UserError if isinstance(error, UserError) else OSError) as raised:
        map_in_processes(work, range(3))
    assert str(raised.value) == str(error)


def test_a_process_that_was_killed_is_an_error_message() -> None:
    parent = os.getpid()

    def work(_item: int) -> None:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="killed"):
        map_in_processes(work, range(3))
