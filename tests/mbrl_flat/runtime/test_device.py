"""Names of devices, what they can do, and numbers of threads."""

import platform
from pathlib import Path

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.runtime.device import choose_device, multiplies_bfloat16, use_threads


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


def _flags():
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    return {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split()}


@pytest.mark.skipif(platform.machine() != "x86_64" or not _flags(), reason="reads x86 flags")
def test_a_processor_multiplies_bfloat16_if_it_has_the_instruction_and_not_by_avx512_alone():
    own = bool({"avx512_bf16", "amx_bf16"} & _flags())

    assert multiplies_bfloat16(torch.device("cpu")) == own


@pytest.mark.parametrize(
    ("able", "expected"),
    [({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True, "avx512_f": True}, True)],
)
def test_avx512_without_its_bfloat16_part_only_emulates_it(monkeypatch, able, expected):
    able = {"architecture": "x86_64", "avx512_f": True} | able
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)

    assert multiplies_bfloat16(torch.device("cpu")) == expected
