"""The official TD-MPC2 code as something that ``bench.py`` can time.

A checkout of https://github.com/nicklashansen/tdmpc2 is copied to a temporary folder, where devices
that it names literally become the CPU; its arithmetic stays as it is. It needs ``tensordict``.
"""

import shutil
import sys
from collections.abc import Callable
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

PATCHES = {
    "tdmpc2.py": {"'cuda:0'": "'cpu'", "capturable=True": "capturable=False"},
    "common/scale.py": {"'cuda:0'": "'cpu'"},
    # Moving a module that holds parameters on the meta device fails; it is on the CPU already.
    "common/world_model.py": {"super().to(*args, **kwargs)": "pass"},
}


def official(
    checkout: Path,
    folder: Path,
    *,
    obs: int,
    action: int,
    size: int,
    batch: tuple[torch.Tensor, ...],
    compile: bool = False,
) -> dict[str, Callable[[], object]]:
    """Build the official agent.

    Args:
        checkout: Of the official repository.
        folder: An empty folder for the patched copy.
        obs: Size of the observation.
        action: Size of the action.
        size: Millions of parameters, one of its ``MODEL_SIZE``.
        batch: Observations ``[H + 1, B, n]``, actions ``[H, B, A]``, rewards and terminations
            ``[H, B, 1]``.
        compile: Let it compile its update and its plan.

    Returns:
        ``update`` and ``act``, ready to be called.
    """
    agent = official_agent(checkout, folder, obs=obs, action=action, size=size, compile=compile)
    seen = torch.randn(obs)
    return {
        "update": lambda: agent.update(Buffer(batch)),
        "act": lambda: agent.act(seen, t0=False),
    }


class Buffer:
    """What the official agent samples: always the same batch."""

    def __init__(self, batch: tuple[torch.Tensor, ...]) -> None:
        self._batch = batch

    def sample(self) -> tuple[Any, ...]:
        """Observations, actions, rewards, terminations and no task."""
        return (*self._batch, None)


def official_agent(
    checkout: Path, folder: Path, *, obs: int, action: int, size: int, **settings: Any
) -> Any:
    """Build the official agent, or that of a copy of its repository, on the CPU.

    Args:
        checkout: Of the repository.
        folder: An empty folder for the patched copy.
        obs: Size of the observation.
        action: Size of the action.
        size: Millions of parameters, one of its ``MODEL_SIZE``.
        settings: Keys of its ``config.yaml`` that are to differ.

    Returns:
        Its ``TDMPC2``.
    """
    copy = folder / f"tdmpc2-{size}-{action}"
    shutil.copytree(checkout / "tdmpc2", copy)
    for name, changes in PATCHES.items():
        text = (copy / name).read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        (copy / name).write_text(text)
    for name in [n for n in sys.modules if n == "tdmpc2" or n.split(".")[0] == "common"]:
        del sys.modules[name]
    sys.path.insert(0, str(copy))
    try:
        from common import MODEL_SIZE  # noqa: PLC0415
        from tdmpc2 import TDMPC2  # noqa: PLC0415
    finally:
        sys.path.remove(str(copy))
    return TDMPC2(_config(copy, obs, action, MODEL_SIZE[size] | settings))


def _config(copy: Path, obs: int, action: int, settings: dict[str, Any]) -> Any:
    """Its settings as its own parser makes them, without Hydra."""
    values = yaml.safe_load((copy / "config.yaml").read_text())
    values.pop("defaults")
    numbers = {k: float(values[k]) for k in ("lr", "entropy_coef")}
    values |= numbers | {"compile": False, "multitask": False, "task_dim": 0} | settings
    values |= {"obs_shape": {"state": (obs,)}, "action_dim": action, "episode_length": 500}
    values |= {"tasks": [values["task"]], "bin_size": 20.0 / (values["num_bins"] - 1)}
    fields = [(k, Any, field(default_factory=lambda v=v: v)) for k, v in values.items()]
    made = make_dataclass("Config", fields)
    made.get = lambda self, name, default=None: getattr(self, name, default)
    return made()
