"""What a process that helps says of its own mistakes; torch's messages are stand-ins."""

import pytest
import torch.distributed as dist

from mbrl_flat.distributed import processes as module
from mbrl_flat.distributed.processes import joined, repeats_the_first
from mbrl_flat.errors import UserError


@pytest.fixture
def follower(monkeypatch):
    """Make this process the second of two."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(module, "is_launched", lambda: True)
    for name in ("init_process_group", "destroy_process_group", "broadcast_object_list"):
        monkeypatch.setattr(dist, name, lambda *_, **__: None)


def caught(act):
    with pytest.raises((UserError, OSError)) as error, joined() as processes:
        act(processes)
    return error.value


def test_what_it_alone_cannot_do_is_said_with_its_number(follower):
    def act(processes):
        processes.receive()
        raise UserError("device=cuda is not on this machine.")

    error = caught(act)

    assert str(error).startswith("Process 1 of 2 on ")
    assert str(error).endswith(": device=cuda is not on this machine.")
    assert not repeats_the_first(error)


def test_a_wrong_word_is_left_to_the_first(follower):
    def act(processes):
        raise UserError("Unknown key.")

    assert repeats_the_first(caught(act))


def test_what_goes_wrong_amid_a_step_is_left_to_the_first(follower):
    def act(processes):
        processes.receive()
        with processes.step():
            raise UserError("The weights have drifted apart.")

    assert repeats_the_first(caught(act))
