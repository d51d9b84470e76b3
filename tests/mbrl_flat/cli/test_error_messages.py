"""Errors of the libraries as one message; the real ones, provoked."""

from dataclasses import dataclass, field

import pytest
import torch
from omegaconf import OmegaConf

from mbrl_flat.cli import commands
from mbrl_flat.cli import main as cli
from mbrl_flat.cli.composition import trusted
from mbrl_flat.cli.error_messages import explain_error, format_error, raised_by_configuration
from mbrl_flat.compare.main import main
from mbrl_flat.errors import UserError
from mbrl_flat.logging.console import say
from mbrl_flat.runs.config import RunConfig


def explained(*words):
    """The message of composing a run with these words."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the libraries raise
        commands.plain(commands.composed("train", ["env=dummy", *words]))
    return explain_error(
        caught.value,
        command="train",
        schema=RunConfig,
        known=lambda: {"seed", "steps", "optimizer.betas"},
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("steps='a b'", "steps must be a whole number, got 'a b'."),
        ("steps=1.5", "steps must be a whole number, got 1.5."),
        ("seed=null", "seed must be a whole number, got null."),
        ("seed=[1]", "seed must be a whole number, got [1]."),
        ("model_lr=fast", "model_lr must be a number, got 'fast'."),
        ("progress=maybe", "progress must be true or false, got 'maybe'."),
        ("wandb.tags=a", "wandb.tags must be a list, such as [a,b], got 'a'."),
        ("wandb.mode=[1]", "wandb.mode must be text, got [1]."),
        ("sed=3", "Unknown key 'sed'; did you mean 'seed'?"),
        ("optimizer.beta=3", "Unknown key 'optimizer.beta'; did you mean 'optimizer.betas'?"),
        (
            "optimizer.learning_rate=3",
            "Unknown key 'optimizer.learning_rate'; the world model's learning rate is",
        ),
        ("optimizer=smm", "Unknown optimizer 'smm'; did you mean 'sam'"),
        ("+variant=smm", "Unknown variant 'smm'; did you mean 'sam'"),
        ("hydra/launcher=jblib", "Unknown hydra/launcher 'jblib'; did you mean 'joblib'?"),
        ("env.task=${oc.env:NO_SUCH_VARIABLE}", "env.task has no value, or refers to one that"),
        ("wandb.project=${nothing}", "wandb.project has no value, or refers to one that"),
    ],
)
def test_what_is_wrong_with_a_word_is_said_by_its_key(word, message):
    assert explained(word).startswith(message)


def test_a_type_of_a_nested_dataclass_is_found_by_its_key():
    @dataclass
    class Inner:
        size: int = 1

    @dataclass
    class Outer:
        inner: Inner = field(default_factory=Inner)

    cfg = OmegaConf.structured(Outer)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        cfg.inner.size = "big"
    message = explain_error(caught.value, command="x", schema=Outer, known=set)
    assert message == "inner.size must be a whole number, got 'big'."


def test_errors_of_the_libraries_that_read_the_command_line_are_told_from_ours():
    with pytest.raises(ValueError, match="Config group override") as theirs:
        commands.composed("train", ["=1"])
    with pytest.raises(ValueError, match="invalid literal") as ours:
        int("x")

    assert raised_by_configuration(theirs.value)
    assert not raised_by_configuration(ours.value)


def test_a_message_has_an_end():
    said = commands._explain(FileNotFoundError(2, "No such file", "a" * 10**6), "train")
    assert said.startswith("No such file: aaa")
    assert len(said) < 5000


def test_anything_else_becomes_one_line():
    assert format_error(ValueError("one\n\n  two ")) == "one two"


def test_a_file_is_named_with_the_reason():
    assert format_error(PermissionError(13, "Permission denied", "a/b")) == (
        "Permission denied: a/b; what was saved before is whole."
    )


def test_without_a_file_both_places_that_may_be_full_are_named():
    """Such as ``> /dev/full``, where the folder has space."""
    assert format_error(OSError(28, "No space left on device")) == (
        "No space left on device: the run folder or the output; what was saved before is whole."
    )


def test_a_pipe_that_nobody_reads_is_not_taken_for_a_file():
    assert format_error(BrokenPipeError(32, "Broken pipe")).startswith("Nobody reads the output")


@pytest.mark.parametrize("trust", [3, {"a": 1}, [1], "", True])
def test_what_is_trusted_is_a_name_or_a_list_of_names(trust):
    with pytest.raises(UserError, match="trust must be a module or a list of modules"):
        trusted(trust)
    assert trusted(None) == []
    assert trusted("a.b") == trusted(["a.b"]) == ["a.b"]


def test_a_message_never_steers_the_terminal():
    """Names in a message may come from the folder of someone else."""
    message = explain_error(
        UserError("a\x1b]0;owned\x07 b\x9b2J c\r d"), command="train", schema=object, known=list
    )
    assert message == r"a\x1b]0;owned\x07 b\x9b2J c\r d"


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[31mb", "a\x85b", "a\u2028b", "a\udcffb"])
def test_control_characters_of_a_name_are_escaped(fails, capsys, tmp_path, name):
    """In errors of commands and of the comparison, and in what a run says."""
    shown = name.encode("unicode_escape").decode()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("agent: {}\n")
    (tmp_path / "run" / "checkpoints" / name).symlink_to("/")
    (tmp_path / "all" / name).mkdir(parents=True)
    (tmp_path / "all" / name / "config.yaml").write_text("agent: {}\n")

    assert f"run/checkpoints/{shown} is a link to /" in fails("resume=run")
    assert main([str(tmp_path / "all")]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert f"all/{shown}/config.yaml" in text
    say(f"run folder: {name}", "files")
    assert capsys.readouterr().out == f"run folder: {shown}\nfiles\n"


@pytest.mark.parametrize("size", [2**60, 2**62])
def test_what_does_not_fit_into_memory_is_an_error_message(size):
    with pytest.raises(RuntimeError) as error:
        torch.empty(size)

    assert format_error(error.value).startswith("The run does not fit into memory (")


@pytest.mark.parametrize("word", ["seed=${a}", "steps=${steps}", "seed=${oc.env:NO_SUCH_VARIABLE}"])
def test_a_setting_that_refers_to_nothing_is_refused_in_one_line(fails, word):
    assert "refers to one that does not exist" in fails("preset=debug", "env=dummy", word)


@pytest.mark.parametrize("word", ["trust=3", "trust=[3]", "trust=['']", "trust={a: 1}"])
def test_trust_that_names_nothing_is_refused_by_a_run_that_needs_none(fails, word):
    assert "trust must be a module" in fails("preset=debug", "env=dummy", word)


@pytest.mark.parametrize("entry", [cli.train, cli.evaluate, cli.probe, cli.export])
def test_words_that_are_no_utf8_are_refused(fails, entry):
    said = fails("run_dir=a\udcffb" if entry is cli.train else "run=a\udcffb", entry=entry)

    assert r"a\udcffb' holds control characters or no UTF-8 text" in said
