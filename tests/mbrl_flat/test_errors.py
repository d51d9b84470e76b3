"""The messages of errors that a user can correct."""

from importlib import metadata

import pytest

from mbrl_flat.errors import (
    MissingExtraError,
    NonFiniteError,
    UnknownNameError,
    UserError,
    install_command,
)


def test_a_near_miss_is_answered_with_the_nearest_names():
    error = UnknownNameError("task", "walker-wlak", ["walker-walk", "dog-run"], where="env=dmc")

    assert isinstance(error, UserError)
    assert str(error) == "Unknown task 'walker-wlak' for env=dmc; did you mean 'walker-walk'?"


def test_several_near_names_are_all_given():
    error = UnknownNameError("task", "walker-rum", ["walker-run", "walker-walk", "cheetah-run"])

    assert str(error).startswith("Unknown task 'walker-rum'; did you mean 'walker-run' or ")


def test_a_name_far_from_all_is_answered_with_the_list_in_order():
    error = UnknownNameError("optimizer", "zzz", ["sam", "adam"])

    assert str(error) == "Unknown optimizer 'zzz'; choose one of: adam, sam."


def test_an_empty_registry_is_said_to_be_empty():
    assert str(UnknownNameError("probe", "x", [])) == (
        "Unknown probe 'x'; choose one of: none is registered."
    )


def test_errors_can_be_caught_as_what_they_are_elsewhere():
    assert issubclass(UserError, ValueError)
    assert issubclass(MissingExtraError, ImportError)
    assert issubclass(MissingExtraError, UserError)
    assert not issubclass(NonFiniteError, UserError)


_GIT = '{"url": "https://git.org/a", "vcs_info": {"vcs": "git", "commit_id": "1"}}'


@pytest.mark.parametrize(
    ("recorded", "command"),
    [
        (None, "pip install 'mbrl-flat[dmc]'"),
        (
            '{"url": "file:///opt/a%20b", "dir_info": {"editable": true}}',
            "pip install -e '/opt/a b[dmc]'",
        ),
        ('{"url": "file:///opt/ab", "dir_info": {}}', "pip install '/opt/ab[dmc]'"),
        (
            '{"url": "file:///w.whl", "archive_info": {}}',
            "pip install 'mbrl-flat[dmc] @ file:///w.whl'",
        ),
        (_GIT, "pip install 'mbrl-flat[dmc] @ git+https://git.org/a'"),
    ],
)
def test_an_extra_is_added_from_where_the_package_came_from(monkeypatch, recorded, command):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return recorded

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    assert install_command("dmc") == command
    said = str(MissingExtraError("env=dmc needs dm-control", "dmc"))
    assert said == f"env=dmc needs dm-control; run: {command}."


def test_a_clone_that_is_not_installed_says_where_to_install(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    assert install_command("dmc") == "pip install -e '.[dmc]' in the clone of mbrl_flat"
