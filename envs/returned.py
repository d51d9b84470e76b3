"""What an environment's code returns, as numbers, flags and images."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np


def as_number(value: Any, what: str) -> float:
    """Turn what a step returned into a float; arrays of one entry are welcome.

    Args:
        value: A number, or an array of any shape with one entry.
        what: What it is called.

    Returns:
        The number.

    Raises:
        ValueError: If it is not one number.
        TypeError: If it is no number, such as text or None.
    """
    if isinstance(value, (bool, int, float)):
        return float(value)
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"{what} has shape {array.shape} and is not one number")
    if array.dtype.kind not in "biuf" and not isinstance(array.item(), Real):
        raise TypeError(f"{what} is {array.item()!r} and not a number")
    return float(array.item())


def as_flag(value: Any, what: str) -> bool:
    """Turn what a step returned into true or false; 0 and 1 are welcome, NaN is neither."""
    number = as_number(value, what)
    if number not in (0.0, 1.0):
        raise ValueError(f"{what} is {number} and neither true nor false")
    return bool(number)


def kept(info: Mapping[str, Any]) -> dict[str, Any]:
    """Those entries that a run reads; others may have any shape, which vectors do not take."""
    found: dict[str, Any] = {}
    success = info.get("success", info.get("is_success"))
    if success is not None:
        found["success"] = as_number(success, "info['success']")
        check_finite(found["success"], "info['success']")
    for name in ("life_lost", "new_episode"):
        if name in info:
            found[name] = as_flag(info[name], f"info[{name!r}]")
    return found


def check_finite(value: Any, what: str) -> None:
    """Refuse numbers that are not finite or too large for float32.

    Args:
        value: A number or an array.
        what: What it is called.

    Raises:
        ValueError: If there is such a number; gives it and its place.
    """
    array = np.asarray(value)
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        fits = np.isfinite(array.astype(np.float32, copy=False))
    if not fits.all():
        place = [int(index) for index in np.argwhere(~fits)[0]]
        raise ValueError(f"it returned {array[tuple(place)]} as its {what}{place or ''}")


def as_frame(frame: Any, like: tuple[int, ...] | None) -> np.ndarray:
    """Check what ``render`` returned.

    Args:
        frame: An image.
        like: Shape of the frames before.

    Returns:
        The image ``[height, width, 3]``, uint8.

    Raises:
        ValueError: If it is no such image, or of another size than those before.
    """
    array = np.asarray(frame)
    if array.dtype.kind not in "iu" or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        given = "None" if frame is None else f"{array.dtype} of shape {array.shape}"
        raise ValueError(
            f"it returned {given}; it must return an image [height, width, 3] in uint8, with "
            f"render_mode='rgb_array'"
        )
    if array.min() < 0 or array.max() > 255:
        raise ValueError("its image has values beyond 0 to 255")
    if like is not None and array.shape != like:
        raise ValueError(f"its images had shape {like}, and now one has {array.shape}")
    return array.astype(np.uint8)
