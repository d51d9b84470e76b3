"""Spaces of Gymnasium environments as agents take them: vectors and images, actions in [-1, 1]."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from mbrl_flat.envs.frames import AreaResize
from mbrl_flat.envs.returned import check_finite
from mbrl_flat.envs.wrappers import Obs
from mbrl_flat.errors import UserError

_SMALLEST_IMAGE = 16
"""Arrays with a shorter side are flattened."""
_MOST_CHANNELS = 16
_LONGEST_VECTOR = 10_000
_ROUNDING = 25.5
"""How far beyond 0 to 255 an image of floats may lie and be clipped."""

Path = tuple[str | int, ...]


class ObservationEntries(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Sorts an observation into one vector ``state`` and images.

    Vectors, discrete values (as one-hot vectors) and small arrays are joined into ``state``,
    float32, in the order of the space. Arrays of at least 16 x 16 pixels with up to 16 channels,
    in uint8 or bounded by [0, 1] or [0, 255], become uint8 images ``[C, size, size]`` under the
    name of their entry, or ``rgb`` where the observation is one image.

    Args:
        env: The environment to wrap; it is closed with this one.
        size: Height and width of images. Larger ones are averaged, smaller ones get a black border.
        name: What error messages call the environment.

    Raises:
        UserError: If the observation space holds anything else.
    """

    def __init__(self, env: gym.Env[Any, Any], *, size: int, name: str) -> None:
        RecordConstructorArgs.__init__(self, size=size, name=name)
        gym.ObservationWrapper.__init__(self, env)
        self._vectors: list[tuple[Path, spaces.Space[Any]]] = []
        self._images: dict[str, tuple[Path, _ImageEntry]] = {}
        for path, space in _entries(env.observation_space):
            shape = _image_shape(space)
            if shape is not None:
                entry = "_".join(map(str, path)) or "rgb"
                entry = f"image_{entry}" if entry == "state" else entry
                self._images[entry] = path, _ImageEntry(space, shape, size)
            elif isinstance(space, (spaces.Box, *_DISCRETE)):
                self._vectors.append((path, space))
            else:
                where = "".join(f"{key}: " for key in path)
                raise UserError(
                    f"{name} has the observation {where}{space}; "
                    f"env=gym takes Box, Discrete, MultiDiscrete and MultiBinary spaces, alone or "
                    f"in a Dict or Tuple."
                )
        size_of_state = sum(spaces.flatdim(space) for _, space in self._vectors)
        if size_of_state > _LONGEST_VECTOR or (size_of_state == 0 and not self._images):
            raise UserError(
                f"The observations of {name} have {size_of_state} entries as a vector; env=gym "
                f"takes 1 to {_LONGEST_VECTOR}, and images of 8-bit pixels. It has "
                f"{env.observation_space}."
            )
        found: dict[str, spaces.Space[Any]] = {
            key: image.space for key, (_, image) in self._images.items()
        }
        if size_of_state > 0:
            found["state"] = spaces.Box(-np.inf, np.inf, (size_of_state,), np.float32)
        self.observation_space = spaces.Dict(found)

    def observation(self, observation: Any) -> Obs:
        """Sort the entries of one observation."""
        found = {key: image(_at(observation, path)) for key, (path, image) in self._images.items()}
        if self._vectors:
            parts = [_flat(space, _at(observation, path)) for path, space in self._vectors]
            found["state"] = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return found


def native_spaces(env: gym.Env[Any, Any]) -> dict[str, str]:
    """Describe the spaces of an environment that agents can take.

    Args:
        env: As its author made it, before its actions and observations are mapped.

    Returns:
        Kind, shape and type of each observation and of the actions, and the bounds of these:
        ``{"observations of": "Box (3,) float32", "actions in": "[-1, 1]", ...}``.
    """
    found = {}
    for path, space in _entries(env.observation_space):
        name = f"the observation {'/'.join(map(str, path))!r}" if path else "observations"
        found[f"{name} of"] = _kind(space)
    action: Any = env.action_space
    found["actions of"] = _kind(action)
    if isinstance(action, spaces.Box):
        pairs = [
            f"[{a:.6g}, {b:.6g}]" for a, b in zip(action.low.flat, action.high.flat, strict=True)
        ]
        groups = [(bounds, len(list(equal))) for bounds, equal in groupby(pairs)]
        powers = [f"{bounds}^{count}" if count > 1 else bounds for bounds, count in groups]
        found["actions in"] = " x ".join(powers)
    return found


def _kind(space: Any) -> str:
    is_box = isinstance(space, spaces.Box)
    return f"Box {space.shape} {space.dtype}" if is_box else str(space)


_DISCRETE = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def _entries(space: spaces.Space[Any], path: Path = ()) -> Iterator[tuple[Path, spaces.Space[Any]]]:
    """The innermost spaces, in order."""
    if isinstance(space, spaces.Dict):
        parts: Any = space.spaces.items()
    elif isinstance(space, spaces.Tuple):
        parts = enumerate(space.spaces)
    else:
        yield path, space
        return
    for key, part in parts:
        yield from _entries(part, (*path, key))


def _at(observation: Any, path: Path) -> Any:
    for key in path:
        observation = observation[key]
    return observation


def _flat(space: spaces.Space[Any], value: Any) -> np.ndarray:
    if np.iscomplexobj(value):
        raise TypeError("an observation has complex numbers, and agents take real ones")
    if isinstance(space, spaces.Box):
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"an observation holds {array.dtype}, and agents take numbers")
        with np.errstate(over="ignore"):  # infinity is named where it is collected
            return np.array(array, np.float32).ravel()
    if not space.contains(value := np.asarray(value, space.dtype).reshape(space.shape)):
        raise ValueError(f"an observation is {value.tolist()}, which is not in {space}")
    return np.asarray(spaces.flatten(space, value), np.float32)


def _image_shape(space: spaces.Space[Any]) -> tuple[int, int, int] | None:
    """Channels, height and width of a space of images; None for others."""
    if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3):
        return None
    bounds = (float(space.low.min()), float(space.high.max()))
    if space.dtype != np.uint8 and bounds not in ((0.0, 1.0), (0.0, 255.0)):
        return None
    shape = space.shape if len(space.shape) == 3 else (1, *space.shape)
    if shape[0] > shape[2]:
        shape = (shape[2], *shape[:2])
    fits = shape[0] <= _MOST_CHANNELS and min(shape[1:]) >= _SMALLEST_IMAGE
    return (shape[0], shape[1], shape[2]) if fits else None


class _ImageEntry:
    """Turns images of one space into uint8 ``[C, size, size]``."""

    def __init__(self, space: Any, shape: tuple[int, int, int], size: int) -> None:
        channels, *sides = shape
        self._given, self._shape = space.shape, shape
        self._scale = 255.0 if float(space.high.max()) == 1.0 else 1.0
        self._exact = space.dtype == np.uint8 and self._scale == 1.0
        border = [max(0, size - side) for side in sides]
        self._border = [(0, 0), *((extra // 2, extra - extra // 2) for extra in border)]
        height, width = (side + extra for side, extra in zip(sides, border, strict=True))
        self._resize = AreaResize(height, width, size) if max(height, width) > size else None
        self.space = spaces.Box(0, 255, (channels, size, size), np.uint8)

    def __call__(self, value: Any) -> np.ndarray:
        image = np.asarray(value)
        if image.dtype.kind not in ("iu" if self._exact else "biuf"):
            raise TypeError(f"an image holds {image.dtype}, which its space does not")
        if image.shape != self._given:
            raise ValueError(f"an image has shape {image.shape}, its space has {self._given}")
        check_finite(image, "image")
        low, high = float(image.min()), float(image.max())
        beyond = 0.0 if self._exact else _ROUNDING
        if not -beyond <= low * self._scale <= high * self._scale <= 255.0 + beyond:
            raise ValueError(f"an image has values from {low:g} to {high:g}, beyond its space")
        if not self._exact:
            image = np.rint(np.asarray(image, np.float64) * self._scale).clip(0, 255)
        image = image.astype(np.uint8)
        if image.ndim == 2:
            image = image[None]
        elif image.shape != self._shape:
            image = image.transpose(2, 0, 1)
        image = np.pad(image, self._border)
        return image if self._resize is None else self._resize(image.transpose(1, 2, 0))


class UnitActions(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Maps actions from [-1, 1] to a bounded Box, or from 0, 1, ... to a Discrete space.

    The map is affine, in float64, rounded for integers, and constant where the bounds meet.

    Args:
        env: The environment to wrap; it is closed with this one.
        name: What error messages call it.

    Raises:
        UserError: If the actions have no bounds, or are of another kind.
    """

    def __init__(self, env: gym.Env[Any, Any], *, name: str) -> None:
        RecordConstructorArgs.__init__(self, name=name)
        gym.ActionWrapper.__init__(self, env)
        space = env.action_space
        if isinstance(space, spaces.Discrete):
            self._first = int(space.start)
            self.action_space = spaces.Discrete(int(space.n))
            return
        if not isinstance(space, spaces.Box) or space.shape == (0,):
            raise UserError(
                f"env=gym takes Box or Discrete actions; {name} has {space}. Give it a wrapper "
                f"that turns its actions into one of these."
            )
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise UserError(f"The actions of {name} have no bounds, so [-1, 1] cannot be mapped.")
        self._space, self._first = space, None
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._whole = np.issubdtype(space.dtype, np.integer)
        self.action_space = spaces.Box(-1.0, 1.0, (int(np.prod(space.shape)),), np.float32)

    def action(self, action: Any) -> Any:
        """Map one action."""
        if self._first is not None:
            return int(action) + self._first
        share = 0.5 * (np.asarray(action, np.float64).reshape(self._space.shape) + 1.0)
        value = np.clip(self._low * (1.0 - share) + self._high * share, self._low, self._high)
        return (np.rint(value) if self._whole else value).astype(self._space.dtype)
