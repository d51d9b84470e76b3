"""The arrays of a replay."""

import pytest

from mbrl_flat.data.storage import allocate
from mbrl_flat.errors import UserError


def test_an_array_beyond_all_memory_names_its_size():
    with pytest.raises(UserError, match="takes 21,830,201,149 GiB; choose a smaller"):
        allocate((1, 10**15, 2930), float, None)


def test_a_file_beyond_all_disks_is_refused(tmp_path):
    with pytest.raises(UserError, match="smaller replay_capacity"):
        allocate((1, 10**18, 8), float, tmp_path)


def test_an_array_of_nothing_but_numbers_is_zero():
    assert allocate((), float, None) == 0.0
