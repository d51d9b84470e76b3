"""Words of a command as Hydra's parser finds them."""

import pytest

from mbrl_flat.cli.arguments import parse_arguments
from mbrl_flat.errors import UserError


def of_train(*words):
    return parse_arguments(words, command="train", sweeps=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seed=1", "-m", "steps=2,3"], ["-m", "seed=1", "steps=2,3"]),
        (["seed=1", "--cfg", "job", "steps=2"], ["--cfg", "job", "seed=1", "steps=2"]),
        (["a=1", "--cfg=job", "--resolve"], ["--cfg=job", "--resolve", "a=1"]),
        (["a=1", "-c", "job", "b=2", "-p", "agent"], ["-c", "job", "-p", "agent", "a=1", "b=2"]),
        (
            ["+variant=sam", "~probes.sharpness", "seed=-1"],
            ["+variant=sam", "~probes.sharpness", "seed=-1"],
        ),
        (["-m", "+arm=adam,sam", "run_dir=arm"], ["-m", "+variant=adam,sam", "run_dir=arm"]),
        (["a=1", "--info", "defaults", "b=2"], ["--info", "defaults", "a=1", "b=2"]),
        (["a=1", "-i", "b=2"], ["-i=all", "a=1", "b=2"]),
        (["run_dir=null", "a=", "b='x y'"], ["run_dir=null", "a=", "b='x y'"]),
        ([], []),
    ],
)
def test_flags_come_first_and_nothing_is_lost(words, expected):
    assert of_train(*words) == expected


@pytest.mark.parametrize("words", [["--config-dir=~/c"], ["--config-dir", "~/c"], ["-cd", "~/c"]])
def test_the_home_directory_is_found_in_flags(words, monkeypatch):
    monkeypatch.setenv("HOME", "/of/mine")

    assert " ".join(of_train(*words)).endswith("/of/mine/c")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seed", "1"], "without dashes: seed=1, not --seed 1."),
        (["--seed=1"], "without dashes: seed=1, not --seed=1."),
        (["-seed", "1"], "without dashes: seed=1, not -seed 1."),
        (["--seed", "steps=3"], "There is no flag --seed; .*: seed=VALUE."),
        (["--seed"], "There is no flag --seed; .*: seed=VALUE."),
        (["--agent.config.size", "5"], "agent.config.size=5, not"),
        (["--cfg", "jbo"], "Unknown value 'jbo' for --cfg; did you mean 'job'"),
        (["--cfg"], "Unknown value '' for --cfg; choose one of: all, hydra, job"),
        (["--info=defaultz"], "Unknown value 'defaultz' for --info; did you mean 'defaults'"),
        (["--"], "There is no flag --;"),
        (["=1"], "'=1' names no setting; write key=value."),
        (["="], "'=' names no setting"),
        (["foo"], "'foo' is no setting: settings are key=value, such as env.task=walker-walk."),
    ],
)
def test_anything_else_is_refused_with_what_to_write(words, said):
    with pytest.raises(UserError, match=said):
        of_train("steps=10", *words)


@pytest.mark.parametrize(
    ("command", "word", "key"),
    [
        ("train", "run_dir=", "run_dir"),
        ("train", "resume=''", "resume"),
        ("train", "offline_data=[runs/a,'']", "offline_data"),
        ("train", "offline_data=''", "offline_data"),
        ("train", "+env.folder=' '", "env.folder"),
        ("train", 'run_dir="  "', "run_dir"),
        ("evaluate", "run=''", "run"),
        ("evaluate", "checkpoint=", "checkpoint"),
        ("probe", "run=", "run"),
        ("export", "--out=", "out"),
        ("supervised", "run_dir=", "run_dir"),
    ],
)
def test_an_empty_path_is_refused(command, word, key):
    with pytest.raises(UserError, match=f"is no path; give one: {key}=PATH, or leave {key} out"):
        parse_arguments([word], command=command, sweeps=False)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("train", "run_dir=$NOPE/x"),
        ("train", "run_dir='a/$NOPE'"),
        ("train", "resume=$NOPE"),
        ("train", "offline_data=[$NOPE/a,b]"),
        ("evaluate", "run=$NOPE"),
        ("export", "--out=$NOPE/x"),
        ("supervised", "hydra.sweep.dir=$NOPE"),
    ],
)
def test_a_variable_that_is_not_set_is_no_folder(command, word, monkeypatch):
    monkeypatch.delenv("NOPE", raising=False)
    with pytest.raises(UserError, match="names the environment variable NOPE, which is not set"):
        parse_arguments([word], command=command, sweeps=False)

    monkeypatch.setenv("NOPE", "here")
    assert "here" in parse_arguments([word], command=command, sweeps=False)[0]


@pytest.mark.parametrize("value", ["1e3", "1_000", "true", "1.50", "INF", "x1", "5", "False"])
def test_a_path_that_would_be_written_otherwise_is_to_be_quoted(value):
    if value in ("x1", "5", "False"):  # as they are
        assert of_train(f"run_dir={value}") == [f"run_dir={value}"]
        return
    with pytest.raises(UserError, match=f"is a number or a switch; quote.*\"run_dir='{value}'\""):
        of_train(f"run_dir={value}")
    assert of_train(f"run_dir='{value}'") == [f"run_dir='{value}'"]


@pytest.mark.parametrize(
    "word", ["~seed", "~seed=3", "~run_dir", "~agent", "~optimizer", "~steps", "~wandb"]
)
def test_a_setting_that_is_needed_is_not_removed(word):
    name = word[1:].partition("=")[0]
    with pytest.raises(UserError) as refused:
        of_train(word)
    said = f"{word} removes a setting that is needed; give a value: {name}=VALUE."
    assert str(refused.value) == said


def test_commands_that_look_at_one_run_make_no_sweeps():
    with pytest.raises(UserError, match="leave out --multirun"):
        parse_arguments(["run=a", "--multirun"], command="probe", sweeps=False)


def test_a_resumed_run_takes_few_settings_whatever_the_order():
    assert of_train("steps=10", "resume=a", "hydra.verbose=true")
    assert of_train("resume=null", "seed=3")
    with pytest.raises(UserError, match=r"keeps its settings, but optimizer\.lr=0.1"):
        of_train("optimizer.lr=0.1", "resume=a")


def test_a_sweep_over_runs_that_go_on_has_a_folder_of_its_own():
    words = ["-m", "resume=a,b", "run_dir=s", "hydra/launcher=joblib"]
    assert of_train(*words) == words


def test_a_part_of_the_default_list_is_chosen_by_its_place():
    word = "probe@probes.sharpness=sharpness_full"

    assert parse_arguments([word], command="train", sweeps=True) == [word]
    with pytest.raises(UserError, match="has no probe to choose; leave it out"):
        parse_arguments(["probe=sharpness"], command="train", sweeps=True)
