"""Names of devices and numbers of threads."""

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.runtime.device import choose_device, use_threads


def test_auto_is_a_device_that_is_there():
    assert choose_device("auto").type in ("cpu", "cuda")
    assert choose_device("cpu") == torch.device("cpu")


def test_an_unknown_device_names_the_nearest_one():
    with pytest.raises(UserError, match="Unknown device 'cudda'; did you mean 'cuda'"):
        choose_device("cudda")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="device=cuda:99 is not on this machine"):
        choose_device("cuda:99")


def test_threads_are_set_and_a_negative_number_is_refused():
    before = torch.get_num_threads()
    use_threads(1)
    assert torch.get_num_threads() == 1
    with pytest.raises(UserError, match="threads must be at least 0 and at most 1024, got -1"):
        use_threads(-1)
    torch.set_num_threads(before)
