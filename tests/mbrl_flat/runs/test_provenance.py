"""The hashes by which two runs can be told to have had the same packages."""

import hashlib
import json
from importlib import metadata
from pathlib import Path

import pytest
import torch

from mbrl_flat.runs import provenance as installed
from mbrl_flat.runs.provenance import write_environment

ROOT = Path(installed.__file__).parents[2]


class Distribution:
    def __init__(self, name, version):
        self.name, self.version = name, version


@pytest.fixture
def packages(monkeypatch):
    def show(*pairs):
        found = [Distribution(*pair) for pair in pairs]
        monkeypatch.setattr(metadata, "distributions", lambda: iter(found))
        return installed.installed_sha256()

    return show


def test_the_hash_is_that_of_the_sorted_names_and_versions(packages):
    expected = hashlib.sha256(b"numpy==2.0\ntorch==2.13").hexdigest()

    assert packages(("torch", "2.13"), ("numpy", "2.0")) == expected


def test_spelling_order_and_this_package_itself_do_not_count(packages):
    first = packages(("Hydra_Core", "1"), ("numpy", "2"), ("mbrl-flat", "0.1"))

    assert first == packages(("numpy", "2"), ("hydra-core", "1"))
    assert first == hashlib.sha256(b"hydra-core==1\nnumpy==2").hexdigest()


def test_the_lock_of_the_source_tree_is_found(monkeypatch):
    monkeypatch.delenv(installed.LOCK_VARIABLE, raising=False)
    content = (ROOT / "requirements.lock").read_bytes()

    assert installed.lock_sha256() == hashlib.sha256(content).hexdigest()


def test_a_lock_can_be_named_and_may_be_absent(monkeypatch, tmp_path):
    monkeypatch.setenv(installed.LOCK_VARIABLE, str(tmp_path / "lock"))
    assert installed.lock_sha256() is None

    (tmp_path / "lock").write_text("torch==2.13.0\n")
    assert installed.lock_sha256() == hashlib.sha256(b"torch==2.13.0\n").hexdigest()


def test_both_hashes_are_in_the_folder_of_a_run(tmp_path):
    write_environment(tmp_path, torch.device("cpu"))

    written = json.loads((tmp_path / "environment.json").read_text())
    assert written["lock_sha256"] == installed.lock_sha256()
    assert written["installed_sha256"] == installed.installed_sha256()
