"""A probe of a run whose replay lies on the disk: as in memory, and nothing of the run changes."""

import hashlib
import json
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.cli import main as cli
from mbrl_flat.data import replay

WORDS = [
    "env=dummy", "preset=debug", "progress=false", "threads=1", "device=cpu", "steps=150",
    "eval_every=0", "probe_every=0", "checkpoint_every=70", "env.episode_length=20",
    "heldout_fraction=0.3",
]  # fmt: skip
SMALL = {"sharpness": ["probe.iterations=2"], "landscape": ["probe.points=3"]}


def state(folder):
    """Content, size and time of everything but what a probe makes."""
    made = ("probes.jsonl", "plots")
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, digest(path))
        for path in sorted(Path(folder).rglob("*"))
        if path.relative_to(folder).parts[0] not in made
    }


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One run twice: with its replay in memory and on the disk."""
    folder = tmp_path_factory.mktemp("runs")
    for storage in ("memory", "disk"):
        with pytest.MonkeyPatch.context() as patch:
            GlobalHydra.instance().clear()
            patch.chdir(folder)
            words = [*WORDS, f"replay_storage={storage}", f"run_dir={storage}"]
            patch.setattr("sys.argv", ["mbrl-flat-train", *words])
            cli.train()
    return folder


@pytest.mark.parametrize("probe", ["sharpness", "rollout_error", "value_error", "landscape"])
def test_a_probe_maps_the_replay_elsewhere_and_changes_no_file(
    command, trained, tmp_path, monkeypatch, probe
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows, mapped, allocate = [], [], replay.allocate

    def watched(shape, dtype, folder):
        mapped.append(folder)
        return allocate(shape, dtype, folder)

    monkeypatch.setattr(replay, "allocate", watched)
    for storage in ("memory", "disk"):
        run = trained / storage
        before = state(run)
        assert any(name.startswith("checkpoints/replay/") for name in before)
        words = [f"run={run}", f"probe={probe}", "episodes=2", "threads=1"]
        command(cli.probe, *words, *SMALL.get(probe, []))
        assert state(run) == before
        rows.append(json.loads((run / "probes.jsonl").read_text().splitlines()[-1]))

    count = len(mapped) // 2
    assert mapped[:count] == [None] * count
    assert all(folder.is_relative_to(tmp_path) for folder in mapped[count:])
    assert not any(folder.exists() for folder in mapped[count:])
    assert rows[0] == rows[1]
