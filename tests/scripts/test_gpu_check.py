"""The check for a GPU, with tiny sizes on the CPU: everything but compilers and the tests."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.py"


@pytest.fixture
def check(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    eager = {agent: {"eager": variants["eager"]} for agent, variants in module.VARIANTS.items()}
    monkeypatch.setattr(module, "VARIANTS", eager)
    return module


def run(check, monkeypatch, tmp_path, *words):
    file = tmp_path / "check.json"
    words = ("--device", "cpu", "--preset", "debug", "--steps", "110", "--rounds", "1", *words)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *words, "--no-tests", "--json", str(file)])
    check.main()
    return json.loads(file.read_text())


def test_all_agents_are_timed_and_a_run_is_made(check, monkeypatch, tmp_path):
    # Far more than it needs, so that a busy machine does not cut the run short.
    report = run(check, monkeypatch, tmp_path, "--seconds", "3000")

    named = [(row["agent"], row["optimizer"]) for row in report["rows"]]
    assert named == [(agent, o) for agent in check.VARIANTS for o in ("adam", "sam")]
    assert all(row["update_ms"] > 0.0 and row["act_ms"] > 0.0 for row in report["rows"])
    assert report["run"]["status"] == "finished"
    assert report["run"]["steps_per_second"] > 0.0
    assert report["table"].count("\n| ") == 1 + len(named)


def test_what_fails_or_is_late_is_named_and_stops_nothing(check, monkeypatch, tmp_path):
    def fails(*settings):
        raise ValueError("no such thing")

    monkeypatch.setattr(check, "compose_run", fails)
    monkeypatch.setattr(check, "_run", lambda *_: {"status": "finished"})
    report = run(check, monkeypatch, tmp_path)
    assert {row["error"] for row in report["rows"]} == {"ValueError: no such thing"}
    assert "no such thing" in report["table"]

    late = run(check, monkeypatch, tmp_path, "--seconds", "0")
    assert {row["error"] for row in late["rows"]} == {"out of time"}
