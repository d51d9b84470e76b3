"""Checkpoints that are whole or absent, hold everything, and never execute what they hold.

A run's folder keeps ``checkpoints/latest.pt`` (everything), ``checkpoints/best.pt`` (the agent
alone) and ``checkpoints/replay/*.pt``: the replay in pieces, each what was added since the piece
before, so that the cost of a checkpoint does not grow with the buffer. Every file is written
under a temporary name, flushed to the disk and renamed. A piece is written before the checkpoint
that names it, and deleted after the first that no longer does.

Files hold tensors, numbers, text and containers of them. NumPy's arrays and scalars, such as those
in the state of a bit generator, are stored as tensors and come back as arrays.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from mbrl_flat.runtime.files import save_atomically

_PIECE = re.compile(r"\d{6}\.pt")
_MOST_SHARED = 10
"""How many times a file's size its tensors may have together, where some share their numbers."""
_MAX_CONTAINERS = 1_000_000
_MAX_DEPTH = 100
_MAX_SHOWN = 40
_NUMPY = "numpy array"
"""Key under which an array is stored as a tensor."""

_HEADER = {
    "step": (int,), "shapes": (dict, NoneType), "spaces": (dict,), "finished": (bool,),
    "replay": (dict,),
}  # fmt: skip
"""What else than states of the run's parts a checkpoint says; one of an agent has a step."""

FORMAT = 1
"""Raised whenever an older reader would misunderstand a file."""


def load_safely(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint without executing anything from it.

    Args:
        path: The checkpoint, a ``.pt`` file.
        device: Where its tensors go.

    Returns:
        What was saved.

    Raises:
        UserError: If the file is absent, truncated, not one of ours, or holds more than data.
    """
    value = read_plain_data(path, device=device)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UserError(
            f"The file {path} is not a checkpoint of this version of mbrl_flat "
            f"(format {FORMAT} was expected)."
        )
    for name, kinds in _HEADER.items():
        found = value.get(name)
        absent = name not in value and (name != "step" or "agent" not in value)
        fits = type(found) in kinds and not (isinstance(found, int) and not 0 <= found < 2**63)
        if not absent and not fits:
            shown = str(found)[:_MAX_SHOWN]
            raise UserError(f"The checkpoint {path} is damaged ({name} is {shown}); use another.")
    return value


def read_plain_data(path: Path, *, device: torch.device | str = "cpu") -> Any:
    """Read any file of ``torch.save`` that holds tensors and plain data.

    Args:
        path: The checkpoint, a ``.pt`` file.
        device: Where its tensors go.

    Returns:
        What was saved; nothing of it has been executed.

    Raises:
        UserError: If the file is absent, truncated, no such file, or holds more than data.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}; check the path.")
    try:
        value = _read(path, device)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"Refused the checkpoint {path}: it is damaged, or it holds objects that loading "
            f"would execute; use another one."
        ) from error
    except Exception as error:  # damaged bytes fail in whatever way the parser happens to
        raise UserError(
            f"The file {path} is truncated, corrupt or no checkpoint at all; "
            f"use another one of the run, or start the run again."
        ) from error
    return value


def _read(path: Path, device: torch.device | str) -> Any:
    """Read a file of ``torch.save``; its old format, a bare pickle, is not tried."""
    with zipfile.ZipFile(path) as file:
        # torch compresses nothing; what is compressed may be a thousand times as large, and so
        # may be entries that share their bytes.
        entries = file.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise zipfile.BadZipFile
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise zipfile.BadZipFile
        if file.testzip():  # torch reads over changed bits
            raise zipfile.BadZipFile
    value = torch.load(path, map_location=device, weights_only=True)
    _check_containers(value, size=path.stat().st_size)
    return _unpacked(value)


def _check_containers(value: Any, *, size: float) -> None:
    """Refuse too many containers, levels or numbers: a few bytes that repeat may be endless."""
    left, number = [([value], 0)], 0
    while left:
        container, depth = left.pop()
        number += 1
        if depth > _MAX_DEPTH or number > _MAX_CONTAINERS:
            raise ValueError(f"more than {_MAX_CONTAINERS} containers or {_MAX_DEPTH} levels")
        inner = list(container.values() if isinstance(container, Mapping) else container)
        left += [(item, depth + 1) for item in inner if isinstance(item, Mapping | list | tuple)]
        size -= sum(item.nbytes for item in inner if isinstance(item, Tensor)) / _MOST_SHARED
        if size < 0:
            raise ValueError("its tensors are larger than the file")


def _packed(value: Any, name: str = "") -> Any:
    """Copy nested containers, with NumPy's arrays as tensors.

    Returns:
        What ``torch.load`` reads without executing anything.

    Raises:
        UserError: If something is no plain data; says where.
    """
    if isinstance(value, Mapping):
        return {key: _packed(item, f"{name}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_packed(item, f"{name}/{i}") for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        with suppress(TypeError):  # text and objects are no tensors
            return {_NUMPY: torch.from_numpy(value.copy())}
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | Tensor):
        return value
    if isinstance(value, torch.dtype | torch.device | torch.Size):
        return value
    raise UserError(
        f"The run cannot be saved: {name.strip('/')} holds a {type(value).__name__}. A checkpoint "
        f"takes tensors, NumPy arrays, numbers, text, and lists and dictionaries of them."
    )


def _unpacked(value: Any) -> Any:
    """Undo ``_packed``."""
    if isinstance(value, dict):
        if value.keys() == {_NUMPY}:
            return value[_NUMPY].numpy()
        return {key: _unpacked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_unpacked(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


class CheckpointFolder:
    """The ``checkpoints`` folder of one run.

    Args:
        path: The folder ``checkpoints`` of a run.

    Attributes:
        env: What checkpoints record of the environment, ``shapes`` and ``spaces``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pieces: list[dict[str, Any]] = []
        self._position: np.ndarray | None = None
        self._verified = False
        self.env: dict[str, dict[str, str]] = {}

    @property
    def latest(self) -> Path:
        """File of the newest whole checkpoint."""
        return self.path / "latest.pt"

    @property
    def best(self) -> Path:
        """File of the agent with the best evaluation."""
        return self.path / "best.pt"

    @property
    def finished(self) -> bool:
        """Whether the newest checkpoint is that of a complete run."""
        return self.latest.exists() and bool(load_safely(self.latest).get("finished"))

    def save_latest(self, state: Mapping[str, Any], replay: Replay) -> None:
        """Save everything; the replay only as far as it is new.

        Args:
            state: Everything but the replay.
            replay: The replay, saved beside the checkpoint so that the run resumes exactly.
        """
        position = np.zeros_like(replay.write_pos) if self._position is None else self._position
        begin = (replay.write_pos - replay.slots_per_env).clip(0)
        kept = [p for p in self._pieces if np.any(np.array(p["until"]) > begin)]
        if np.any(replay.write_pos > position):
            number = int(self._pieces[-1]["name"].removesuffix(".pt")) + 1 if self._pieces else 0
            piece = {"name": f"{number:06d}.pt", "until": replay.write_pos.tolist()}
            content = {"format": FORMAT, "arrays": replay.slots_since(position)}
            save_atomically(content, self.path / "replay" / piece["name"])
            kept.append(piece)
        full = {
            "format": FORMAT,
            **self.env,
            **state,
            "replay": replay.state_dict(),
            "pieces": kept,
        }
        save_atomically(_packed(full), self.latest)
        if not self._verified:
            load_safely(self.latest)
            self._verified = True
        self._pieces, self._position = kept, replay.write_pos.copy()
        self._drop_unnamed()

    def save_best(self, agent_state: Mapping[str, Any], *, step: int, score: float) -> None:
        """Save the agent alone, with the evaluation that made it the best."""
        content = {"format": FORMAT, "agent": agent_state, "step": step, "score": score, **self.env}
        save_atomically(_packed(content), self.best)

    def load_latest(self, *, device: torch.device) -> dict[str, Any]:
        """Read the newest checkpoint; nothing is changed by it.

        Args:
            device: Where the tensors of the agent go. All others, such as those of simulators,
                stay on the CPU.

        Returns:
            Its content.
        """
        state = load_safely(self.latest)
        agent = pytree.tree_map_only(
            Tensor, lambda tensor: tensor.to(device), state.get("agent", {})
        )
        return {**state, "agent": agent}

    def load_for_resume(self, *, steps: int, device: torch.device) -> dict[str, Any] | None:
        """Read the newest checkpoint of a run that is resumed.

        Args:
            steps: The length of the whole run.
            device: Where the tensors of the agent go.

        Returns:
            Its content, or None if there is none.

        Raises:
            UserError: If the run is past its steps.
        """
        if not self.latest.exists():
            return None
        state = self.load_latest(device=device)
        if "step" not in state:
            raise UserError(f"The checkpoint {self.latest} is damaged (no step); use another.")
        # Several environments may pass the last step together.
        beyond = state["step"] - steps
        if beyond > 0 and not (state["finished"] and beyond < state["replay"]["num_envs"]):
            raise UserError(
                f"{self.path.parent} is at step {state['step']} already, and steps={steps} is the "
                f"length of the whole run; give steps above {state['step']}."
            )
        return state

    def restore_replay(self, state: Mapping[str, Any], replay: Replay) -> None:
        """Fill ``replay`` from the pieces that a loaded checkpoint names, and build on them."""
        self.read_replay(state, replay)
        self._pieces = list(state["pieces"])
        self._position = replay.write_pos.copy()
        self._drop_unnamed()

    def read_replay(self, state: Mapping[str, Any], replay: Replay) -> None:
        """Fill ``replay``; no file is touched."""
        replay.load_state_dict(state["replay"])
        for arrays in self.read_pieces(state):
            replay.write_back(arrays)

    def read_pieces(self, state: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Read the arrays of each piece that a loaded checkpoint names."""
        for piece in state["pieces"]:
            if not _PIECE.fullmatch(piece["name"]):
                raise UserError(
                    f"Refused the checkpoint {self.latest}: it names {piece['name']!r} as a part "
                    f"of the replay; use another one."
                )
            yield load_safely(self.path / "replay" / piece["name"])["arrays"]

    def _drop_unnamed(self) -> None:
        """Delete pieces that no checkpoint names: overwritten, or of a run that was killed."""
        names = {piece["name"] for piece in self._pieces}
        for file in (self.path / "replay").glob("*.pt*"):
            if file.name not in names:
                file.unlink()
