"""Lets the unmodified HumanoidBench package run on current gymnasium, mujoco and dm-control.

The package is not edited: what it expects of older releases is supplied from outside.

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

from mbrl_flat.envs.dmc import set_renderer
from mbrl_flat.errors import MissingExtraError, UserError

REPOSITORY = "carlosferrazza/humanoid-bench"
COMMIT = "791405f5eacf879adbc99105adb3fee73f5a49fc"
FREE_JOINT = "free_base"
"""What the reward of loading a truck calls the root joint, also on g1, whose model does not."""
SHADOW_SIZE = 1024
"""The models ask for 16384, with which a frame takes five times as long in software."""
_POLICIES = "humanoid_bench.mjx.flax_to_torch"
_MISSING_FILE = re.compile(r"opening file '([^']*)'")


def engine() -> Any:
    """Import ``mujoco``, which reads the choice of a renderer then; it has no types to check."""
    set_renderer()
    return importlib.import_module("mujoco")


def load_package() -> Any:
    """Import the package's module of environments, without JAX.

    Returns:
        ``humanoid_bench.env`` with the names ``HumanoidEnv``, ``ROBOTS`` and ``TASKS``.

    Raises:
        MissingExtraError: If the package is absent.
    """
    set_renderer()
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
            f"not on PyPI: git clone https://github.com/{REPOSITORY}, git checkout "
            f"{COMMIT[:7]} there, and put the folder on PYTHONPATH or pip install --no-deps -e it."
        ) from error
    prune_sizes(sizes.array_sizes)
    return package


def prune_sizes(sizes: dict[str, dict[str, Any]]) -> None:
    """Delete from a table of array sizes, in place, each field that the engine does not have."""
    mujoco = engine()
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    live = {"mjmodel": dir(model), "mjdata": dir(mujoco.MjData(model))}
    for struct, fields in live.items():
        for name in set(sizes[struct]) - set(fields):
            del sizes[struct][name]


def load_model(path: str) -> Any:
    """Compile a model, with a flat texture for each whose file is missing.

    Args:
        path: The MuJoCo model, an XML file of the package.

    Returns:
        The ``MjModel``; its shadow map is small enough for software rendering.

    Raises:
        UserError: If this release of the engine refuses the model.
    """
    try:
        spec = engine().MjSpec.from_file(path)
        _name_free_joint(spec)
        model = _compile(spec)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        name = path.replace("\\", "/").rsplit("/", maxsplit=1)[-1]
        raise UserError(
            f"The model {name} of HumanoidBench does not compile on mujoco "
            f"{engine().__version__} ({reason}); choose another task."
        ) from error
    model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, SHADOW_SIZE)
    return model


def _name_free_joint(spec: Any) -> None:
    free = [joint for joint in spec.joints if joint.type == engine().mjtJoint.mjJNT_FREE]
    if free and all(joint.name != FREE_JOINT for joint in free):
        free[0].name = FREE_JOINT


def _compile(spec: Any) -> Any:
    while True:
        try:
            return spec.compile()
        except ValueError as error:
            if not _flatten_textures(spec, str(error)):
                raise


def _flatten_textures(spec: Any, message: str) -> bool:
    """Replace the textures whose file the message names; say whether there was one."""
    found = _MISSING_FILE.search(message)
    if found is None:
        return False
    name = found[1].replace("\\", "/").split("/")[-1]
    textures = [t for t in spec.textures if t.file and t.file.split("/")[-1] == name]
    for texture in textures:
        texture.file = ""
        texture.builtin = engine().mjtBuiltin.mjBUILTIN_FLAT
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
