"""Signals as requests."""

import os
import signal

import pytest

from mbrl_flat.runtime.interrupts import Interrupted, cancellable, check_interrupt, stop_requests


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGUSR1, 128 + signal.SIGUSR1),
        (signal.SIGUSR2, 128 + signal.SIGUSR2),
        (signal.SIGHUP, 129),
        (signal.SIGXCPU, 128 + signal.SIGXCPU),
    ],
)
def test_a_signal_is_noted_and_gives_the_status_a_shell_expects(number, status):
    before = signal.getsignal(number)
    # Under nohup, or in the background of a shell, some are ignored.
    signal.signal(number, signal.SIG_DFL)
    try:
        with stop_requests() as request:
            assert (request.signal, request.exit_status) == (None, 0)
            os.kill(os.getpid(), number)
            assert request.signal == number
            assert request.exit_status == status
        ignored = number == signal.SIGXCPU
        assert signal.getsignal(number) is (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(number, before)


def test_a_run_that_nohup_started_outlives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.signal is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interrupt_acts_at_once():
    # A shell's background jobs start with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with stop_requests():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_the_systems_own_repetition_is_no_second_request():
    """Beyond a limit of CPU time SIGXCPU comes again each second, also while the run is saved."""
    repeated = []
    before = signal.signal(signal.SIGXCPU, lambda *_: repeated.append(1))
    try:
        with stop_requests() as request:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGXCPU)
        os.kill(os.getpid(), signal.SIGXCPU)  # while its figures are drawn
        assert request.signal == signal.SIGXCPU
        assert repeated == []
    finally:
        signal.signal(signal.SIGXCPU, before)


def test_only_droppable_work_gives_way_and_only_once_it_was_asked_to():
    asked = False
    check_interrupt()
    with cancellable(lambda: asked):
        check_interrupt()
        asked = True
        with pytest.raises(Interrupted):
            check_interrupt()
    check_interrupt()


def test_the_first_signal_is_answered(capfd):
    with stop_requests():
        assert capfd.readouterr().err == ""
        os.kill(os.getpid(), signal.SIGUSR1)
        assert "once more to quit at once" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_where_nobody_reads_the_answer(number):
    """Ctrl-C in ``... 2>&1 | tee log`` ends tee as well, and the pipe with it."""
    kept = os.dup(2)
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 2)
    try:
        with stop_requests() as request:
            os.kill(os.getpid(), number)
            assert request.signal == number
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(write)
