"""Where a run computes, and with how many threads."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.runtime.allocator import keep_freed_memory

_MAX_THREADS = 1024


def choose_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` into a device that is there.

    Args:
        name: What the user wrote; ``auto`` takes CUDA if there is one, else the CPU.

    Returns:
        The device.

    Raises:
        UserError: If it does not exist on this machine.
        UnknownNameError: If it is not the name of a device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise UnknownNameError("device", name, ["auto", "cpu", "cuda", "mps"])
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }[kind]
    if int(index or 0) >= there:
        raise UserError(f"device={name} is not on this machine; use device=auto or device=cpu.")
    return torch.device(name)


def transfer(value: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to CUDA from pinned memory, so that nobody waits for the copy."""
    if device.type == "cuda" and value.device.type == "cpu":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on an accelerator."""
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return torch.cuda.mem_get_info(device)[0]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Say whether products in bfloat16 are the hardware's, not emulated at many times the cost."""
    if device.type != "cpu":
        return True
    # oneDNN says yes on any AVX-512, where it emulates them.
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if able.get("architecture") == "x86_64":
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return torch.backends.mkldnn.is_available() and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def use_tf32(wanted: bool) -> None:
    """Multiply float32 matrices on CUDA devices in TF32, or in full precision."""
    torch.backends.cuda.matmul.allow_tf32 = wanted
    torch.backends.cudnn.allow_tf32 = wanted


def check_threads(threads: int) -> None:
    """Refuse a number of threads that no machine has.

    Args:
        threads: What the user wrote.

    Raises:
        UserError: If it is out of range.
    """
    if not 0 <= threads <= _MAX_THREADS:
        raise UserError(
            f"threads must be at least 0 and at most {_MAX_THREADS}, got {threads}; 0 chooses by "
            f"the machine."
        )


def use_threads(threads: int, *, processes: int = 1) -> None:
    """Set torch's threads.

    Args:
        threads: How many; 0 means what ``OMP_NUM_THREADS`` says, else one for each core that this
            process may use, at most 8.
        processes: How many share these cores.

    Raises:
        UserError: If ``threads`` is out of range.
    """
    check_threads(threads)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    chosen = int(asked) if asked.isdigit() else min(usable_cores() // processes, 8)
    torch.set_num_threads(threads or max(1, chosen))
    keep_freed_memory()


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less in a container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdigit() else total


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
