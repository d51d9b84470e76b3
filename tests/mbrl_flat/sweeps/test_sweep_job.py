"""What one run of a sweep does when its turn has come."""

import errno
import fcntl
import json
import signal
from contextlib import contextmanager

import pytest

from mbrl_flat.errors import UserError
from mbrl_flat.runtime.files import save_atomically
from mbrl_flat.runtime.interrupts import StopRequest
from mbrl_flat.sweeps import SweepFolder, SweepJob, share_of_cores
from mbrl_flat.sweeps import job as jobs
from mbrl_flat.sweeps.outcome import read_outcomes

SETTINGS = "seed: 1\noptimizer: {rho: 0.1}\nrun_dir: here\nthreads: 1\n"


@pytest.fixture
def sweep(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return SweepFolder.begin(["-m", "run_dir=s"])


@pytest.fixture
def launched(monkeypatch):
    """Instead of a process: note what would be started and end with ``launched.status``."""

    class Launched(list):
        status = 0
        writes = None

    launched = Launched()

    def run_in_process(command, *, log, on_start, **kwargs):
        launched.append(command)
        log.write_text("Out of luck.\n")
        on_start(123)
        if launched.writes:
            launched.writes()
        return launched.status

    monkeypatch.setattr(jobs, "run_in_process", run_in_process)
    return launched


def make(sweep, *, settings=SETTINGS, check=lambda: None, objective="eval/return_mean"):
    job = SweepJob(sweep, ["seed=1"], explain=str)
    value = job.train(lambda: settings, check, objective=objective)
    return value, job


def finish(folder, *, finished=True):
    """What a complete run leaves behind."""
    rows = [{"step": 1, "eval/return_mean": 2.0}, {"step": 2, "eval/return_mean": 5.0}, {"step": 2}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_atomically({"format": 1, "finished": finished}, folder / "checkpoints" / "latest.pt")


def test_a_new_run_is_written_down_and_then_started_by_its_folder(sweep, launched):
    folder = sweep.folder / "seed-1"
    launched.writes = lambda: finish(folder)
    value, job = make(sweep)
    assert value == 5.0
    assert (folder / "config.yaml").read_text() == SETTINGS
    assert f"resume='{folder}'" in launched[0]
    assert [o.status for o in read_outcomes(sweep.start)] == ["finished"]
    assert job.outcome.line() == "seed-1: finished, eval/return_mean 5"


def test_a_finished_run_is_left_alone_and_its_result_is_still_told(sweep, launched):
    launched.writes = lambda: finish(sweep.folder / "seed-1")
    make(sweep)
    value, job = make(sweep, check=pytest.fail)
    assert (value, job.outcome.status, len(launched)) == (5.0, "finished before", 1)


def test_an_interrupted_run_goes_on(sweep, launched):
    launched.status = -9
    launched.writes = lambda: finish(sweep.folder / "seed-1", finished=False)
    value, job = make(sweep)
    assert (value, job.outcome.status) == (None, "failed")
    assert "SIGKILL" in job.outcome.reason
    launched.status = 0
    value, job = make(sweep, settings=SETTINGS.replace("threads: 1", "threads: 2"))
    assert (value, job.outcome.status, len(launched)) == (5.0, "finished", 2)
    assert "threads: 1" in (sweep.folder / "seed-1" / "config.yaml").read_text()


def test_a_run_of_other_settings_is_not_gone_on_with(sweep, launched):
    launched.writes = lambda: finish(sweep.folder / "seed-1")
    make(sweep)
    _, job = make(sweep, settings=SETTINGS.replace("0.1", "0.2"))
    assert job.outcome.status == "failed"
    assert "seed-1 holds a run with optimizer.rho=0.1, not 0.2" in job.outcome.reason


def test_what_cannot_be_built_leaves_no_folder_and_raises_nothing(sweep, launched):
    def check():
        raise UserError("rho must be at least 0, got -1.")

    value, job = make(sweep, check=check)
    assert (value, job.outcome.status) == (None, "failed")
    assert job.outcome.reason == "rho must be at least 0, got -1."
    assert not (sweep.folder / "seed-1").exists()
    assert launched == []


def test_a_run_that_fails_before_it_begins_leaves_no_folder_but_a_log(sweep, launched):
    launched.status = 2
    _, job = make(sweep)
    assert job.outcome.reason == "Out of luck."
    assert not (sweep.folder / "seed-1").exists()
    assert (sweep.folder / ".sweep" / "logs" / "seed-1.log").is_file()


def test_a_run_that_another_process_is_making_is_left_to_it(sweep, launched, monkeypatch):
    monkeypatch.setattr(jobs, "_LOCK_SECONDS", 0.0)
    with (sweep.folder / ".sweep" / "locks" / "seed-1").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        _, job = make(sweep)
    assert "another process is making this run" in job.outcome.reason
    assert launched == []


def test_a_run_that_was_told_to_stop_is_not_called_a_failure(sweep, launched):
    launched.status = 143
    launched.writes = lambda: finish(sweep.folder / "seed-1", finished=False)
    _, job = make(sweep)
    assert (job.outcome.status, job.outcome.reason) == ("stopped", "by SIGTERM, with a checkpoint")
    assert not job.outcome.done


def test_a_metric_that_was_never_measured_has_no_value(sweep, launched):
    launched.writes = lambda: finish(sweep.folder / "seed-1")
    value, job = make(sweep, objective="probe/value/rmse")
    assert value is None
    assert job.outcome.line() == "seed-1: finished"


def test_a_request_that_was_never_made_is_obeyed_by_doing_nothing():
    jobs._obey(StopRequest())


@pytest.mark.parametrize(
    ("launcher", "threads"),
    [
        ({}, 0),
        ({"n_jobs": -1}, 1),
        ({"n_jobs": 2}, 4),
        ({"n_jobs": 3}, 2),
        ({"n_jobs": 16}, 1),
        ({"cpus_per_task": None}, 1),
        ({"cpus_per_task": 4}, 4),
        ({"ray": {"init": {}, "remote": {}}}, 1),
        ({"ray": {"init": {}, "remote": {"num_cpus": 2}}}, 2),
    ],
)
def test_runs_at_the_same_time_share_the_cores(launcher, threads):
    assert share_of_cores(launcher, 8) == threads


@pytest.mark.parametrize(("status", "reason"), [(2, "Out of luck."), (-9, "SIGKILL")])
def test_a_run_that_fails_after_a_request_is_called_a_failure(
    sweep, launched, monkeypatch, status, reason
):
    asked = StopRequest()

    @contextmanager
    def stop_requests():
        yield asked

    def ask():
        asked.signal = signal.SIGUSR1

    monkeypatch.setattr(jobs, "stop_requests", stop_requests)
    monkeypatch.setattr(jobs, "_obey", lambda request: None)
    launched.status, launched.writes = status, ask
    _, job = make(sweep)
    assert job.outcome.status == "failed"
    assert reason in job.outcome.reason


def test_no_run_is_begun_for_a_command_that_is_gone(sweep, launched, monkeypatch):
    obeyed = []
    monkeypatch.setattr(jobs, "_obey", lambda request: obeyed.append(request.signal))
    monkeypatch.setattr(jobs, "_PARENT", -1)
    make(sweep)
    assert (len(launched), obeyed) == (1, [None])

    monkeypatch.setattr(SweepFolder, "pid", -2)
    assert make(sweep)[0] is None
    assert (len(launched), obeyed) == (1, [None, signal.SIGTERM])


def test_a_full_disk_is_not_taken_for_one_without_locks(sweep, launched, monkeypatch):
    def full(path, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("mbrl_flat.sweeps.job.take_lock", full)
    _, job = make(sweep)
    assert job.outcome.status == "failed"
    assert launched == []
    assert "No space left on device" in job.outcome.reason
    assert "no locks" not in job.outcome.reason


def test_a_file_system_without_locks_is_named(sweep, launched, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    _, job = make(sweep)
    assert "has no locks (Function not implemented)" in job.outcome.reason
    assert launched == []


def test_what_lies_where_the_command_was_given_is_not_imported(sweep, launched):
    make(sweep)
    assert launched[0][1] == "-P"
