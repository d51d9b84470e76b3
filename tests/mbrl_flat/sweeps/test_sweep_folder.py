"""Names of runs, folders of sweeps, and what is said at the end."""

import itertools
import os
import signal
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mbrl_flat.errors import MissingExtraError, UserError
from mbrl_flat.sweeps import SweepFolder, make_sweep, quoted, run_name, wants_sweep
from mbrl_flat.sweeps.folder import VARIABLE
from mbrl_flat.sweeps.outcome import RunOutcome, summary


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_does_not_depend_on_the_order_of_the_settings():
    names = {
        run_name(order) for order in itertools.permutations(["seed=1", "optimizer=sam", "b=c"])
    }
    assert names == {"b-c_optimizer-sam_seed-1"}


def test_where_and_how_a_run_is_watched_is_not_in_its_name():
    assert run_name(["seed=1", "progress=false", "run_dir=x", "debug=true"]) == "seed-1"
    assert run_name([]) == "defaults"


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer/base=adamw"],
        ["optimizer.only=[encoder,dynamics]"],
        ["env.task='a b'"],
        ["env.path=a/b=c"],
        [f"key{i}=value" for i in range(100)],
    ],
)
def test_every_name_is_a_short_file_name_that_can_be_typed_without_quotes(overrides, here):
    name = run_name([*overrides, "seed=1"])
    assert len(name) < 200
    (here / name).mkdir()
    parsed = OverridesParser.create().parse_override(f"run=runs/S/{name}")
    assert parsed.value() == f"runs/S/{name}"


def test_settings_that_look_alike_as_file_names_have_different_names():
    alike = [["k=[a,b]"], ["k=[a;b]"], ["k=[a,b"], ["k=(a/b)"]]
    assert len({run_name(overrides) for overrides in alike}) == len(alike)


@pytest.mark.parametrize("flag", ["-m", "--multirun", "hydra.mode=MULTIRUN"])
def test_a_sweep_is_asked_for_by_a_flag(flag):
    assert wants_sweep(["mbrl-flat-train", flag, "seed=1,2"])
    assert not wants_sweep(["mbrl-flat-train", "seed=1"])


def test_two_sweeps_of_the_same_second_have_folders_of_their_own():
    sweeps = [SweepFolder.begin(["-m", "seed=1,2"]) for _ in range(3)]
    assert len({sweep.folder for sweep in sweeps}) == 3


def test_the_same_folder_is_entered_again_when_it_is_named():
    first, second = (SweepFolder.begin(["-m", "run_dir=runs/mine"]) for _ in range(2))
    assert first.folder == second.folder
    assert sorted(first.folder.glob(".sweep/starts/*")) == sorted({first.start, second.start})
    assert (first.new, second.new) == (True, False)


def test_a_job_finds_its_sweep_by_the_environment(monkeypatch, here):
    assert SweepFolder.of_this_job() is None
    sweep = SweepFolder.begin(["-m", "run_dir=runs/mine"])
    monkeypatch.setenv(VARIABLE, str(sweep.start))
    job = SweepFolder.of_this_job()
    assert job is not None
    assert (job.folder, job.start, job.cwd) == (here / "runs" / "mine", sweep.start, here)


def test_the_folder_of_a_run_is_no_folder_for_a_sweep(here):
    (here / "r").mkdir()
    (here / "r" / "config.yaml").touch()
    with pytest.raises(UserError, match="folder of one run"):
        SweepFolder.begin(["-m", "run_dir=r"])
    with pytest.raises(UserError, match="one path"):
        SweepFolder.begin(["-m", "run_dir=a,b"])


def test_a_folder_that_cannot_be_made_is_named(here):
    (here / "file").touch()
    with pytest.raises(UserError, match="file/s: Not a directory"):
        SweepFolder.begin(["-m", "run_dir=file/s"])


def test_a_sweep_that_was_refused_leaves_nothing_behind(here):
    class RefusedError(Exception):
        pass

    def refuse():
        raise RefusedError

    with pytest.raises(RefusedError):
        make_sweep(["mbrl-flat-train", "-m"], refuse, (RefusedError,))
    assert list((here / "runs").iterdir()) == []


@pytest.fixture
def heeds_signals():
    """Usual handlers: a process of pytest-xdist ignores Ctrl-C, one under nohup SIGHUP."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeds_signals")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU]
)
def test_ending_the_command_leaves_jobs_that_wait_in_a_queue_what_they_need(here, number):
    """A job of a cluster that has not begun is known by the launcher's folder alone."""

    def launch_and_wait():
        (here / "s" / ".submitit").mkdir()
        os.kill(os.getpid(), number)
        time.sleep(10)

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        make_sweep(["mbrl-flat-train", "-m", "run_dir=s"], launch_and_wait, ())
    assert stop.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert len(list((here / "s" / ".sweep" / "starts").glob("*/start.txt"))) == 1


def test_a_start_that_is_taken_back_touches_nothing_of_another(here):
    first, second = (SweepFolder.begin(["-m", "run_dir=s"]) for _ in range(2))
    (second.folder / "seed-1").mkdir()

    first.undo()

    assert not first.start.exists()
    assert second.start.is_dir()
    assert (here / "s" / "seed-1").is_dir()


def test_no_folder_at_all_means_a_new_one(here):
    assert SweepFolder.begin(["-m", "run_dir=null"]).folder.parent == here / "runs"


@pytest.mark.parametrize("word", ["run_dir=", "run_dir=''", 'run_dir=" "', "hydra.sweep.dir="])
def test_an_empty_folder_is_refused(word, here):
    with pytest.raises(UserError, match="run_dir is empty; give a folder"):
        SweepFolder.begin(["-m", word])
    assert not list(here.iterdir())


def test_a_sweep_of_nohup_lives_on_when_the_terminal_is_closed():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(UserError, match="The sweep has no run"):  # so it came to its end
            make_sweep(["mbrl-flat-train", "-m"], lambda: os.kill(os.getpid(), signal.SIGHUP), ())
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_list_of_folders_is_refused_wherever_its_comma_stands():
    with pytest.raises(UserError, match="one path, not a,b/c"):
        SweepFolder.begin(["-m", "run_dir=a,b/c"])


@pytest.mark.parametrize("name", ["it's", "a b, c [1] {2}", "x=y", "$HOME"])
def test_a_path_survives_the_parser_whatever_its_letters(name):
    override = OverridesParser.create().parse_override(f"run_dir={quoted(Path(name))}")
    assert override.value() == name


@pytest.mark.parametrize(
    ("error", "extra"),
    [
        ("Error locating target 'hydra_plugins.hydra_ray_launcher.x.RayLauncher'", "ray"),
        ("In 'hydra/launcher/ray_cluster': Could not load 'hydra/launcher/ray'.", "ray"),
        ("Could not find 'hydra/launcher/submitit_slurm'", "sweeps"),
        (
            "Could not override 'hydra/sweeper'. No match in the defaults: hydra/sweeper/optuna",
            "sweeps",
        ),
    ],
)
def test_a_launcher_that_is_not_installed_names_the_extra(error, extra):
    def missing():
        raise LookupError(error)

    with pytest.raises(MissingExtraError, match=rf"pip install .*\[{extra}\]'"):
        make_sweep(["mbrl-flat-train", "-m"], missing, (LookupError,))


def test_a_cluster_that_cannot_be_reached_is_one_error_message():
    def unreachable():
        raise RuntimeError('Could not detect "srun",\n are you indeed on a slurm cluster?')

    with pytest.raises(
        UserError, match='could not continue: Could not detect "srun", are you'
    ) as e:
        make_sweep(["mbrl-flat-train", "-m"], unreachable, ())
    assert "\n" not in str(e.value)


def test_a_sweep_with_a_failed_run_ends_with_status_1_and_says_why(capsys):
    arguments = ["mbrl-flat-train", "-m", "run_dir=s"]

    def main():
        start = Path(next(a for a in arguments if VARIABLE in a).partition("=")[2].strip("'"))
        RunOutcome(name="a", status="finished", objective="return", value=3.0).write(start)
        RunOutcome(name="b", status="failed", reason="No room.").write(start)

    with pytest.raises(SystemExit) as stop:
        make_sweep(arguments, main, ())
    assert stop.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["2 runs: 1 failed, 1 finished", "  b: failed: No room."]
    assert "run_dir=s does what is missing" in lines[3]


def test_a_summary_counts_what_is_done_and_lists_what_is_not():
    outcomes = [
        RunOutcome(name="a", status="finished"),
        RunOutcome(name="b", status="finished before"),
        RunOutcome(name="c", status="stopped", reason="by SIGTERM"),
        RunOutcome(name="d"),
    ]
    assert summary(outcomes) == [
        "4 runs: 1 finished, 1 finished before, 1 not ended, 1 stopped",
        "  c: stopped: by SIGTERM",
        "  d: did not end; its job was killed or lost",
    ]
