import logging
import sys
from types import SimpleNamespace

import pytest

from mbrl_flat.errors import MissingExtraError, UserError
from mbrl_flat.logging import WandbLogger
from mbrl_flat.runs.config import RunConfig, WandbConfig


class FakeRun:
    def __init__(self, fail):
        self.rows, self.defined, self.finished, self.fail = [], [], False, fail

    def log(self, row):
        if self.fail:
            raise ConnectionError("service is down")
        self.rows.append(row)

    def define_metric(self, name, step_metric=None):
        self.defined.append((name, step_metric))

    def finish(self):
        self.finished = True


class FakeWandb:
    """What the mirror uses of wandb, and a record of how it was used."""

    def __init__(self):
        self.api = SimpleNamespace(api_key=None)
        self.Settings = dict
        self.inits, self.runs, self.fail = [], [], False

    def init(self, **arguments):
        self.inits.append(arguments)
        self.runs.append(FakeRun(self.fail))
        return self.runs[-1]


@pytest.fixture
def fake(monkeypatch):
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return module


def test_the_x_axis_of_every_metric_is_the_step(fake, tmp_path):
    logger = WandbLogger(tmp_path, config={"seed": 1})

    logger.write({"eval/return_mean": 5.0}, step=10, frame=20)

    assert fake.runs[0].defined == [("step", None), ("*", "step")]
    assert fake.runs[0].rows == [{"step": 10, "frame": 20, "eval/return_mean": 5.0}]
    assert fake.inits[0]["config"] == {"seed": 1}


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (("auto", None, "key"), "offline"),
        (("auto", "online", "key"), "online"),
        (("auto", "online", None), "offline"),
        (("online", None, "key"), "online"),
        (("online", None, None), "offline"),
        (("offline", "online", "key"), "offline"),
    ],
)
def test_only_a_login_and_a_wish_together_reach_the_service(
    fake, tmp_path, monkeypatch, wish, expected
):
    mode, variable, fake.api.api_key = wish
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)

    WandbLogger(tmp_path, config={}, mode=mode)

    assert fake.inits[0]["mode"] == expected


@pytest.mark.parametrize(("mode", "variable"), [("disabled", "online"), ("auto", "disabled")])
def test_a_disabled_mirror_never_starts_a_run(fake, tmp_path, monkeypatch, mode, variable):
    monkeypatch.setenv("WANDB_MODE", variable)

    logger = WandbLogger(tmp_path, config={}, mode=mode)
    logger.write({"a": 1.0}, step=1, frame=1)
    logger.close()

    assert fake.inits == []
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_has_the_same_id(fake, tmp_path):
    for _ in range(2):
        WandbLogger(tmp_path, config={}).close()

    first, second = fake.inits
    assert first["id"] == second["id"]
    assert all(run.finished for run in fake.runs)


def test_a_failure_is_one_warning_and_the_mirror_falls_silent(fake, tmp_path, caplog):
    fake.fail = True
    logger = WandbLogger(tmp_path, config={})

    with caplog.at_level(logging.WARNING):
        for step in range(3):
            logger.write({"a": 1.0}, step=step, frame=step)
        logger.close()

    assert len(caplog.records) == 1
    assert "service is down" in caplog.text
    assert not logger.active


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match="did you mean 'offline'"):
        RunConfig(wandb=WandbConfig(mode="ofline"))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)

    with pytest.raises(MissingExtraError, match=r"run: pip install .*\[wandb\]'"):
        WandbLogger(tmp_path, config={})


def test_an_offline_run_leaves_its_record_inside_the_runs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(tmp_path, config={"seed": 1})

    logger.write({"eval/return_mean": 5.0}, step=10, frame=20)
    assert logger.active
    logger.close()

    (record,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert record.stat().st_size > 0
    assert (tmp_path / "wandb" / "run_id").read_text().strip() in record.name
