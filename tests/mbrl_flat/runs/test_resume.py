"""A run that exists."""

import pytest

from mbrl_flat.errors import UserError
from mbrl_flat.runs.resume import existing_run, resumable_keys


@pytest.mark.parametrize("path", [None, ""])
def test_a_run_must_be_named(path):
    with pytest.raises(UserError, match="Say which run"):
        existing_run(path)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="There is no run at"):
        existing_run(str(tmp_path / "file"))


@pytest.mark.parametrize(("study", "command"), [(True, "train"), (False, "supervised")])
def test_a_run_of_the_other_kind_names_the_command_for_it(tmp_path, study, command):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    if not study:
        (tmp_path / "study.json").write_text("{}")

    with pytest.raises(UserError, match=f"mbrl-flat-{command} resume={tmp_path}"):
        existing_run(str(tmp_path), study=study)

    assert existing_run(str(tmp_path), study=not study) == tmp_path


def test_only_some_settings_change_when_a_run_goes_on():
    words = ["steps=3", "+wandb.mode=offline", "++optimizer.rho=1", "optimizer.sigma.value=2"]
    keys = ["steps", "wandb.mode", "optimizer.rho", "optimizer.sigma.value"]
    assert list(resumable_keys(words)) == keys
    for word in ("seed=3", "optimizer.lr=1", "optimizer=sam", "optimizer.rhos=1"):
        with pytest.raises(UserError, match=f"keeps its settings, but {word} was given"):
            list(resumable_keys([word]))
