"""Seeded mutations of everything that is read: refused with one error message, or used.

What is refused raises one of the errors that the commands turn into a message and exit status 2.
Anything else, such as a TypeError, would be a traceback.
"""

import copy
import json
import math
import random
import shutil
from contextlib import ExitStack, suppress

import pytest
import torch
import yaml

from mbrl_flat.cli.arguments import parse_arguments
from mbrl_flat.cli.commands import _error_messages
from mbrl_flat.cli.composition import build_run, composed, load_settings, plain
from mbrl_flat.compare.comparison import compare_runs
from mbrl_flat.compare.page import render_page
from mbrl_flat.compare.runs import load_run
from mbrl_flat.distributed.processes import Processes
from mbrl_flat.errors import NonFiniteError, UserError
from mbrl_flat.logging.jsonl import read_metrics
from mbrl_flat.runs import train
from mbrl_flat.runs.evaluate import evaluate_run
from mbrl_flat.runs.loading import refused_if_unfit
from mbrl_flat.runs.plots import draw_run

REFUSED = (UserError, NonFiniteError)
TINY = [
    "env=dummy", "preset=debug", "progress=false", "threads=1", "device=cpu", "steps=18",
    "env.episode_length=8", "seed_steps=16", "eval_every=9", "probe_every=0", "eval_episodes=1",
    "~probes.sharpness", "agent.config.batch_size=4", "agent.config.horizon=2",
    "agent.config.planner.iterations=1", "agent.config.planner.num_samples=8",
    "agent.config.planner.num_elites=4", "optimizer=sam",
]  # fmt: skip
NAMES = {"agent": "tdmpc2", "env": "dummy", "task": "point", "optimizer": "sam"}
NONSENSE = [math.nan, 10**30, [[1]], "a\0b", "é" * 3, {"a": 1}]
"""What no number, choice or switch of a configuration can be."""
EXTREMES = [0, 1, -1, 3, 1e-30, 1e30, math.inf, -math.inf, 2**62, None, "", [], {}, True, "x"]
TEXTS = {
    "YAML bomb": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "nested": "a: " + "[" * 3000 + "]" * 3000,
    "deep JSON": '{"step": ' * 5000,
    "deep array": '{"step": ' + "[" * 5000 + "]" * 5000 + "}\n",
    "400 digits": '{"step": 1, "frame": 1, "time": 1, "eval/return_mean": ' + "9" * 400 + "}\n",
    "5000 digits": '{"seed": ' + "9" * 5000 + "}\n",
    "a list": "[1, 2]\n",
    "a number": "3\n",
    "nothing": "",
    "null": "null\n",
    "text": "eval/return_mean\n",
    "pickle": "!!python/object/apply:os.system [id]\n",
    "control characters": "a: \0\x01\n",
}
LINES = [
    b"{}", b"[]", b"null", b"1", b"{", b'{"step": null}', b"\xff\xfe", b"NaN", b'{"step": 1e400}',
    b'{"step": 1, "frame": 1, "time": 1, "eval/return_mean": null}',
    b'{"step": 1, "frame": 1, "time": 1, "eval/return_mean": true}',
    b'{"step": null, "frame": null, "time": null, "eval/return_mean": 1}',
    b'{"step": -5, "frame": -5, "time": -5, "eval/return_mean": 1}',
    b'{"step": 9e99, "frame": 1, "time": 1, "eval/return_mean": 1e308}',
    b'{"step": 2, "frame": 2, "time": "x", "eval/return_mean": 1}',
    b'{"step": 2, "frame": 2, "time": 2, "eval/return_mean": {"a": 1}}',
    *(text.encode() for name, text in TEXTS.items() if "JSON" in name or "digits" in name),
]  # fmt: skip


@pytest.fixture(scope="module")
def settings():
    return plain(composed("train", TINY)) | {"names": NAMES}


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory):
    """A finished run of 18 steps, and its settings and parts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | {"run_dir": str(folder)}))
    built = build_run(load_settings(str(folder))[0])
    assert train.train_run(*built, folder) == 0
    return folder, built


@pytest.fixture
def copied(trained, tmp_path):
    """Makes copies of the run."""

    def copy_run(number):
        return shutil.copytree(trained[0], tmp_path / f"run{number}")

    return copy_run


def places(tree, above=()):
    """Where every value of nested settings is."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in inner:
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from places(value, (*above, key))


def leaves(tree):
    """Places and values of everything that holds no other values."""
    for place in places(tree):
        value = tree
        for key in place:
            value = value[key]
        if not isinstance(value, dict | list):
            yield place, value


def put(tree, place, value):
    """Copy a tree with another value at a place."""
    changed = copy.deepcopy(tree)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def read(folder, settings):
    """Read and build a saved configuration."""
    file = folder / "config.yaml"
    file.write_text(yaml.dump(settings | {"run_dir": str(folder)}, Dumper=yaml.CSafeDumper))
    return build_run(load_settings(str(folder))[0])


def one_message(error):
    assert str(error).strip()
    assert "\n" not in str(error)
    assert "Traceback" not in str(error)


FREE = ("names", "run_dir", "resume", "trust", "objective", "wandb", "offline_data")
"""Keys that hold text of the user's own, or nothing that a run builds."""


def test_a_value_that_no_setting_can_have_is_refused_for_every_one(settings, tmp_path):
    numbers = [
        place
        for place, value in leaves(settings)
        if place[0] not in FREE
        and place[-1] not in ("_partial_", "_convert_", "_recursive_", "compile")
        and isinstance(value, int | float)
    ]
    rng = random.Random(0)
    cases = [(place, value) for place in numbers for value in NONSENSE]
    taken = []
    for place, value in rng.sample(cases, 200):
        try:
            read(tmp_path, put(settings, place, value))
        except UserError as error:
            one_message(error)
        else:
            taken.append((place, value))
    assert not taken


def test_unknown_and_missing_keys_are_refused_or_have_a_default(settings, tmp_path):
    inner = [place for place in places(settings) if place[0] not in FREE]
    inner = [place for place in inner if isinstance(place[-1], str)]
    for place in random.Random(1).sample(inner, 40):
        with pytest.raises(UserError) as caught:
            read(tmp_path, put(settings, (*place[:-1], "zz"), 1))
        one_message(caught.value)
        changed = copy.deepcopy(settings)
        above = changed
        for key in place[:-1]:
            above = above[key]
        del above[place[-1]]
        with suppress(UserError):
            read(tmp_path, changed)


def test_extreme_settings_train_or_are_refused(settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "write_environment", lambda *_: None)
    rng = random.Random(2)
    where = [place for place in places(settings) if place[0] not in FREE]
    built = []
    for number in range(150):
        folder = tmp_path / str(number)
        folder.mkdir()
        place, value = rng.choice(where), rng.choice(EXTREMES)
        try:
            built.append((place, value, folder, read(folder, put(settings, place, value))))
        except UserError as error:
            one_message(error)
    assert len(built) > 12
    for place, value, folder, parts in built[:12]:
        status = None
        try:
            with _error_messages("train", debug=False):
                status = train.train_run(*parts, folder)
        except SystemExit as stop:
            status = stop.code
        if status == 2:
            assert capsys.readouterr().err.count("\n") == 1, (place, value)
            continue
        assert status == 0, (place, value)
        rows = read_metrics(folder / "metrics.jsonl")
        assert rows, (place, value)
        assert all(math.isfinite(row["step"]) for row in rows)


WORDS = [
    "", "=", "seed", "seed=", "seed=1,2", "seed=[", "seed={a:1", "~seed", "~", "+", "++", "--seed",
    "--seed 1", "-x", "seed==1", "seed=$(id)", "optimizer=[sam]", "optimizer=", "env=../x",
    "resume=x optimizer.lr=1", "resume=", "run_dir=~/x", "run_dir='", 'run_dir="', "a.b.c=1",
    "+a.b=1", "hydra.run.dir=/x", "seed=${seed}", "seed=${oc.env:HOME}", "seed=\n", "é=1",
    "experiment=vasso", "experiment=../train", "probe=sharpness", "-m", "-m -m", "--config-dir",
    "steps=" + "9" * 5000, "x=" + "[" * 3000, "seed=range(1,3)", "seed=choice(1,2)", "seed=\0",
]  # fmt: skip


@pytest.mark.parametrize("command", ["train", "evaluate", "probe", "supervised"])
def test_words_of_a_command_line_are_parsed_or_refused(command):
    rng = random.Random(3)
    for _ in range(100):
        words = " ".join(rng.choices(WORDS, k=rng.randint(1, 4))).split(" ")
        try:
            assert isinstance(parse_arguments(words, command=command, sweeps=True), list)
        except UserError as error:
            one_message(error)


def damaged(rng, content):
    """Bytes with a flipped bit, without a part, doubled, or cut."""
    at, length = rng.randrange(len(content) + 1), rng.randrange(1, 64)
    return rng.choice([
        content[:at],
        content[:at] + content[at + length :],
        content[:at] + rng.randbytes(length) + content[at + length :],
        content[:at] + rng.choice(LINES) + b"\n" + content[at:],
        rng.choice(list(TEXTS.values())).encode(),
    ])  # fmt: skip


def test_metrics_and_small_files_are_read_or_refused(copied):
    rng = random.Random(4)
    folder = copied(0)
    small = [folder / name for name in ("metrics.jsonl", "config.yaml", "environment.json")]
    whole = {file: file.read_bytes() for file in small}
    compared = 0
    for number in range(200):
        file = rng.choice([small[0], *small])
        file.write_bytes(damaged(rng, whole[file]))
        try:
            run = load_run(folder)
            if number % 20 == 0:
                compared += 1
                assert render_page(compare_runs([run]), title="x")
                draw_run(folder)
        except UserError as error:
            one_message(error)
        with suppress(UserError):
            load_settings(str(folder))
        file.write_bytes(whole[file])
    assert compared > 0


def use(folder, built):
    """Evaluate a run and resume it, each unless it is refused."""
    for act in (_evaluate, _resume):
        try:
            act(folder, built)
        except REFUSED as error:
            one_message(error)


def _evaluate(folder, built):
    row = evaluate_run(*built, folder, checkpoint="latest", episodes=1, seed=1, video=False)
    assert math.isfinite(row["eval/return_mean"])


def _resume(folder, built):
    with ExitStack() as stack:
        trainer, saved = train.build_trainer(*built, folder, Processes(), stack)
        with refused_if_unfit(trainer.checkpoints.latest):
            trainer.load_state_dict(saved or {})


def test_damaged_checkpoints_are_refused_or_used(trained, copied, monkeypatch, capsys):
    monkeypatch.setattr(train, "write_environment", lambda *_: None)
    rng = random.Random(5)
    folder = copied(0)
    files = [folder / "checkpoints" / "latest.pt", folder / "checkpoints" / "replay" / "000000.pt"]
    whole = {file: file.read_bytes() for file in files}
    for _ in range(24):
        file = rng.choice(files)
        file.write_bytes(damaged(rng, whole[file]))
        use(folder, trained[1])
        for name, content in whole.items():
            name.write_bytes(content)
    assert "Traceback" not in capsys.readouterr().err


def test_checkpoints_with_other_content_are_refused_or_used(trained, copied, monkeypatch):
    monkeypatch.setattr(train, "write_environment", lambda *_: None)
    rng = random.Random(6)
    folder = copied(0)
    latest = folder / "checkpoints" / "latest.pt"
    metrics = folder / "metrics.jsonl"
    saved, rows = torch.load(latest, weights_only=True), metrics.read_bytes()
    where = list(places(saved))
    values = [*EXTREMES, math.nan, torch.full((2,), math.nan), torch.zeros(0), "../x", [1, 2]]
    for _ in range(40):
        changed = put(saved, rng.choice(where), rng.choice(values))
        torch.save(changed, latest)
        use(folder, trained[1])
        metrics.write_bytes(rows)
        pieces = folder / "checkpoints" / "replay"
        shutil.copytree(trained[0] / "checkpoints" / "replay", pieces, dirs_exist_ok=True)


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints/latest.pt", "checkpoints/replay"])
def test_nothing_outside_of_a_run_folder_is_changed(trained, copied, tmp_path, name):
    folder, outside = copied(0), tmp_path / "outside"
    shutil.copytree(folder, outside)
    place = folder / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.symlink_to(outside / name)
    before = {file: file.read_bytes() for file in outside.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="outside of"):
        load_settings(str(folder))
    assert {file: file.read_bytes() for file in outside.rglob("*") if file.is_file()} == before
    assert json.loads((outside / "environment.json").read_text())
