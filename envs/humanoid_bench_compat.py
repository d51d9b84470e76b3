"""Lets the unmodified HumanoidBench package run on current gymnasium, mujoco and dm-control.

Nothing of the package is edited: what it expects of older releases is put right from outside.

References:
    Sferrazza et al., "HumanoidBench", 2024, arXiv:2403.10506; carlosferrazza/humanoid-bench.
"""

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from mbrl_flat.errors import MissingExtraError

# A compiled module, whose names a type checker can't see.
mujoco: Any = importlib.import_module("mujoco")

COMMIT = "791405f5eacf879adbc99105adb3fee73f5a49fc"
SHADOW_SIZE = 1024
_POLICIES = "humanoid_bench.mjx.flax_to_torch"
_MISSING_FILE = re.compile(r"opening file '([^']*)'")


def load_package() -> Any:
    """Import the package's module of environments, without JAX.

    Returns:
        ``humanoid_bench.env`` with the names ``HumanoidEnv``, ``ROBOTS`` and ``TASKS``.

    Raises:
        MissingExtraError: If the package is absent.
    """
    if _POLICIES not in sys.modules:
        # Only hierarchical policies use this module, and it alone imports JAX.
        policies: Any = ModuleType(_POLICIES)
        policies.TorchModel = policies.TorchPolicy = object
        sys.modules[_POLICIES] = policies
    try:
        package = importlib.import_module("humanoid_bench.env")
        sizes = importlib.import_module("humanoid_bench.dmc_deps.dmc_sizes")
    except ImportError as error:
        raise MissingExtraError(
            f"env=humanoid_bench needs the package humanoid_bench, which did not import ({error}); "
            f"clone the public repository carlosferrazza/humanoid-bench, check out {COMMIT[:7]} "
            f"and put it on PYTHONPATH."
        ) from error
    prune_sizes(sizes.array_sizes)
    return package


def prune_sizes(sizes: dict[str, dict[str, Any]]) -> None:
    """Delete from a table of array sizes, in place, each field that the engine does not have."""
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    live = {"mjmodel": dir(model), "mjdata": dir(mujoco.MjData(model))}
    for struct, fields in live.items():
        for name in set(sizes[struct]) - set(fields):
            del sizes[struct][name]


def load_model(path: str) -> Any:
    """Compile a model, with a flat texture for each whose file is missing.

    Args:
        path: Model file.

    Returns:
        The ``MjModel``; its shadow map is small enough for software rendering.

    Raises:
        ValueError: If the model does not compile for another reason.
    """
    spec = mujoco.MjSpec.from_file(path)
    while True:
        try:
            model = spec.compile()
        except ValueError as error:
            if not _flatten_textures(spec, str(error)):
                raise
        else:
            model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, SHADOW_SIZE)
            return model


def _flatten_textures(spec: Any, message: str) -> bool:
    """Replace the textures whose file the message names; say whether there was one."""
    found = _MISSING_FILE.search(message)
    if found is None:
        return False
    name = found[1].replace("\\", "/").split("/")[-1]
    textures = [t for t in spec.textures if t.file and t.file.split("/")[-1] == name]
    for texture in textures:
        texture.file = ""
        texture.builtin = mujoco.mjtBuiltin.mjBUILTIN_FLAT
        texture.rgb1 = texture.rgb2 = np.array([0.6, 0.5, 0.4])
        texture.width = texture.height = 32
    return bool(textures)


@contextmanager
def global_random(own: np.random.RandomState) -> Iterator[None]:
    """Let code that draws from NumPy's global generator draw from ``own`` instead."""
    outside = np.random.get_state()  # noqa: NPY002 - the package draws from it
    np.random.set_state(own.get_state())  # noqa: NPY002
    try:
        yield
    finally:
        own.set_state(np.random.get_state())  # noqa: NPY002
        np.random.set_state(outside)  # noqa: NPY002
