"""The check of kills: one that shows nothing fails."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(
    ("found", "problems", "status"),
    [
        ((4, 4), "", 0), ((4, 2), "", 0), ((4, 1), "", 1), ((4, 0), "", 1), ((3, 3), "", 1),
        ((4, 4), "weights differ", 1),
    ],
)  # fmt: skip
def test_a_check_passes_only_if_kills_came_after_checkpoints_and_nothing_differs(
    monkeypatch, capsys, found, problems, status
):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    main = runpy.run_path(str(SCRIPTS / "kill_resume.py"))["main"]
    monkeypatch.setitem(main.__globals__, "_run", lambda command: 1.0)
    monkeypatch.setitem(main.__globals__, "_run_with_kills", lambda *_: found)
    monkeypatch.setitem(main.__globals__, "differences", lambda *_: problems)
    monkeypatch.setattr(sys, "argv", ["kill_resume.py", "--kills", "4"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == status
    assert f"{found[1]} of the kills came after a new checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize("kills", ["0", "-3"])
def test_no_kills_at_all_are_refused(monkeypatch, capsys, kills):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    main = runpy.run_path(str(SCRIPTS / "kill_resume.py"))["main"]
    monkeypatch.setattr(sys, "argv", ["kill_resume.py", "--kills", kills])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "no kill shows nothing" in capsys.readouterr().err
