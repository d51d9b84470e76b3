"""What an offline run leaves on the disk is what a later ``wandb sync`` will send."""

import json
import os
import struct
import subprocess
import sys
import time

import pytest

from mbrl_flat.logging import WandbLogger
from mbrl_flat.logging.labels import run_labels, run_settings

CONFIG = {
    "names": {"agent": "tdmpc2", "env": "dmc", "task": "walker-walk", "optimizer": "sam"},
    "seed": 3,
    "optimizer": {"lr": 3e-4, "rho": 0.01},
    "preset": "cpu",
}


def records(path):
    """Records of a ``.wandb`` file: LevelDB framing around protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        if position + 7 + length > len(data):
            return  # still being written
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "walker"
    folder.mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(folder, config=run_settings(CONFIG), **run_labels(CONFIG))
    for step in range(3):
        logger.write({"eval/return_mean": 10.0 * step}, step=step, frame=2 * step)
    assert logger.active
    logger.close()
    patch.undo()
    (record,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    # The file is written by a process of the package, which on a busy machine ends a little later.
    until = time.monotonic() + 60.0
    while not any(r.WhichOneof("record_type") == "exit" for r in records(record)):
        assert time.monotonic() < until, "the record was never completed"
        time.sleep(0.1)
    return record


def test_the_record_has_the_labels_the_settings_and_every_row(offline):
    found = list(records(offline))

    run = next(r.run for r in found if r.WhichOneof("record_type") == "run")
    assert run.run_group == run_labels(CONFIG)["group"]
    assert run.job_type == "train"
    assert set(run.tags) == {"walker-walk", "tdmpc2", "sam", "cpu"}
    config = {
        u.key: json.loads(u.value_json)
        for r in found
        if r.WhichOneof("record_type") in ("run", "config")
        for u in (r.run.config.update if r.WhichOneof("record_type") == "run" else r.config.update)
    }
    assert (config["optimizer_name"], config["task"]) == ("sam", "walker-walk")
    rows = [
        {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in r.history.item}
        for r in found
        if r.WhichOneof("record_type") == "history"
    ]
    assert [(r["step"], r["frame"], r["eval/return_mean"]) for r in rows] == [
        (0, 0, 0.0),
        (1, 2, 10.0),
        (2, 4, 20.0),
    ]
    assert any(r.WhichOneof("record_type") == "exit" for r in found)


def test_wandb_sync_finds_the_run_and_would_send_it(offline):
    """``--dry-run`` stops where the network would begin."""
    answer = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", str(offline.parent)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "WANDB_SILENT": "false"},
    )

    assert answer.returncode == 0
    assert "Would sync 1 run(s)" in answer.stdout + answer.stderr
    assert offline.name in answer.stdout + answer.stderr
