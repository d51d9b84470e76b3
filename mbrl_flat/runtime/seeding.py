"""Random streams: one seed for all of them, and measurements that leave none of them moved."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.errors import UserError


def check_seed(seed: int) -> None:
    """Refuse a seed that some stream does not take.

    Args:
        seed: What the user gave.

    Raises:
        UserError: If it is out of range.
    """
    if not 0 <= seed < 2**62:
        bound = "at least 0" if seed < 0 else "below 2**62"
        raise UserError(f"seed must be {bound}, got {seed}.")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's global stream and every torch device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - simulators draw from the global stream
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of every global stream as plain containers and tensors."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [name, torch.from_numpy(np.array(keys, np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what ``rng_state`` returned, also if it was loaded to another device since."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        (name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached)
    )
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])


@contextmanager
def restored_rng() -> Iterator[None]:
    """Put every global stream back on exit, also when the body raises."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def set_generator(
    generator: torch.Generator, state: Tensor, *, saved_on: str | None, seeds: Sequence[int]
) -> None:
    """Restore a generator on the kind of device where its state was saved, or restart it.

    The state of one kind of device means nothing to another.

    Args:
        generator: To be changed.
        state: What ``get_state`` gave.
        saved_on: Type of the device it was saved on, such as ``cpu``; ``None`` if nobody noted it,
            which is then judged by the size of the state.
        seeds: Non-negative integers that determine the new stream on another kind of device.
    """
    if saved_on is None:
        same = state.numel() == generator.get_state().numel()
    else:
        same = saved_on == generator.device.type
    if same:
        generator.set_state(state.cpu())
    else:
        mixed = np.random.SeedSequence([*seeds]).generate_state(1, np.uint64)
        generator.manual_seed(int(mixed[0] >> np.uint64(1)))
