"""Processes that stop when they are asked to, and when nobody is left to ask them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mbrl_flat.runtime.interrupts import StopRequest
from mbrl_flat.sweeps.process import describe_status, run_in_process

CHILD = """
import sys, time
from pathlib import Path
from mbrl_flat.runtime.interrupts import stop_requests
with stop_requests() as request:
    Path(sys.argv[1]).touch()
    while request.signal is None:
        time.sleep(0.01)
Path(sys.argv[1] + ".saved").touch()
sys.exit(request.exit_status)
"""

DEAF = """
import os, sys, time
from pathlib import Path
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(600)
"""

PARENT = """
import os, sys
from pathlib import Path
from mbrl_flat.runtime.interrupts import StopRequest
from mbrl_flat.sweeps.process import run_in_process
run_in_process([sys.executable, "-c", sys.argv[1], sys.argv[2]], request=StopRequest(),
    log=Path(sys.argv[2] + ".log"), cwd=Path.cwd(), environment=os.environ)
"""


def run(code: str, *arguments: str, folder: Path, request: StopRequest | None = None) -> int:
    return run_in_process(
        [sys.executable, "-c", code, *arguments],
        request=request or StopRequest(),
        log=folder / "log",
        cwd=folder,
        environment=os.environ,
    )


def wait_for(file: Path) -> None:
    until = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_a_run_prints_goes_to_its_log_and_its_last_line_says_why_it_failed(tmp_path):
    status = run("import sys; print('begun'); sys.exit('There is no such task.')", folder=tmp_path)
    assert status == 1
    assert (tmp_path / "log").read_text().splitlines() == ["begun", "There is no such task."]
    assert describe_status(status, tmp_path / "log") == "There is no such task."


def test_a_run_that_was_killed_and_one_that_says_nothing_are_told_apart(tmp_path):
    status = run("import os; os.kill(os.getpid(), 9)", folder=tmp_path)
    assert "SIGKILL" in describe_status(status, tmp_path / "log")
    status = run("import os; os._exit(3)", folder=tmp_path)
    assert describe_status(status, tmp_path / "log") == "ended with status 3"


def test_a_request_reaches_the_run_which_saves_and_stops(tmp_path):
    class Later(StopRequest):
        """Made as soon as the run is under way."""

        @property
        def signal(self):
            return signal.SIGTERM if (tmp_path / "here").exists() else None

        @signal.setter
        def signal(self, value):
            pass

    assert run(CHILD, "here", folder=tmp_path, request=Later()) == 128 + signal.SIGTERM
    assert (tmp_path / "here.saved").exists()


def test_a_run_that_nobody_waits_for_any_more_saves_and_stops(tmp_path):
    status = run_in_process(
        [sys.executable, "-c", CHILD, "here"],
        request=StopRequest(),
        log=tmp_path / "log",
        cwd=tmp_path,
        environment=os.environ,
        orphaned=(tmp_path / "here").exists,
    )
    assert status == 128 + signal.SIGTERM
    assert (tmp_path / "here.saved").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_whose_parent_was_killed_saves_and_stops_by_itself(tmp_path, number):
    here = tmp_path / "here"
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(here)]) as parent:
        wait_for(here)
        parent.send_signal(number)
    wait_for(tmp_path / "here.saved")


def test_a_parent_that_is_told_to_quit_at_once_takes_its_run_with_it(tmp_path):
    here = tmp_path / "here"

    def interrupted() -> bool:
        if here.exists() and here.read_text():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run_in_process(
            [sys.executable, "-c", DEAF, str(here)],
            request=StopRequest(),
            log=tmp_path / "log",
            cwd=tmp_path,
            environment=os.environ,
            orphaned=interrupted,
        )
    with pytest.raises(ProcessLookupError):
        os.kill(int(here.read_text()), 0)
