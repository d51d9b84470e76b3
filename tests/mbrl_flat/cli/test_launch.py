"""What a command finds when it starts: closed streams, and settings of programs with windows."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys
from pathlib import Path
from mbrl_flat.cli import launch

class Command:
    @staticmethod
    def go():
        file = open("file", "w")
        sys.stdin.read()
        print("to stdout", flush=True)
        sys.stderr.write("to stderr\\n")
        sys.stderr.flush()
        import os
        os.write(1, b"native\\n")
        file.close()
        Path("done").touch()

sys.modules["command"] = Command
launch._launch("command", "go")
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_a_closed_stream_neither_ends_a_command_nor_writes_into_its_files(tmp_path, closed):
    """A service may start a command so, or ``>&-``; the next file would take the number."""

    def close():
        for number in closed:
            os.close(number)

    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE], cwd=tmp_path, preexec_fn=close, check=True, timeout=240,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip

    assert (tmp_path / "done").exists()
    assert (tmp_path / "file").read_text() == ""
    assert done.stdout == ("" if 1 in closed else "to stdout\nnative\n")
    assert done.stderr == ("" if 2 in closed else "to stderr\n")


def test_no_window_is_asked_for(tmp_path):
    """A notebook or a login script may have set a backend that is not there."""
    code = "from mbrl_flat.cli import launch; launch._launch('matplotlib', 'get_backend')"
    environment = {**os.environ, "MPLBACKEND": "Qt4Agg"}

    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip

    assert done.stderr == ""
    assert done.returncode == 0
