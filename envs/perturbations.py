"""Gymnasium wrappers that perturb an environment by a graded strength.

They act on environments as agents see them: actions in [-1, 1] or discrete, named observations. A
strength of 0 changes nothing. Each has its own random stream, so that episodes of the same seed
start in the same state whatever the strength.
"""

import importlib
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from mbrl_flat.errors import UserError
from mbrl_flat.specs import TASK

Quantity = Literal["mass", "gravity", "friction", "actuator"]

_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "mass": ("m", "masspole", "masscart", "LINK_MASS_1", "LINK_MASS_2"),
    "gravity": ("g", "gravity"),
    "friction": ("friction",),
    "actuator": ("max_torque", "force_mag", "force", "power"),
}
"""Names in environments that are not simulated by MuJoCo."""


class ActionNoise(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Adds Gaussian noise to actions, or replaces discrete ones by random ones.

    Args:
        env: The environment to wrap; it is closed with this one.
        strength: Standard deviation in units of [-1, 1]; probability for discrete actions.
        seed: Determines the noise.
    """

    def __init__(self, env: gym.Env[Any, Any], strength: float, *, seed: int = 0) -> None:
        RecordConstructorArgs.__init__(self, strength=strength, seed=seed)
        gym.ActionWrapper.__init__(self, env)
        self.strength, self._rng = strength, np.random.default_rng(seed)

    def action(self, action: Any) -> Any:
        """Perturb one action."""
        space = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            replaced = self._rng.random() < self.strength
            other = int(self._rng.integers(space.n))
            return other if replaced else action
        noise = self.strength * self._rng.normal(size=np.shape(action))
        return np.clip(action + noise, -1.0, 1.0).astype(np.float32)


class ObservationNoise(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Adds Gaussian noise to observations.

    Args:
        env: The environment to wrap; it is closed with this one.
        strength: Standard deviation as a share of ``scale``, of images as a share of 255.
        scale: Standard deviation of each entry of the observation over recorded steps.
        seed: Determines the noise.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        strength: float,
        *,
        scale: Mapping[str, np.ndarray],
        seed: int = 0,
    ) -> None:
        RecordConstructorArgs.__init__(self, strength=strength, scale=scale, seed=seed)
        gym.ObservationWrapper.__init__(self, env)
        self.strength, self.scale = strength, scale
        self._rng = np.random.default_rng(seed)

    def observation(self, observation: Any) -> Any:
        """Perturb one observation; the index of a task stays."""
        return {
            name: value if name == TASK else self._noisy(name, value)
            for name, value in observation.items()
        }

    def _noisy(self, name: str, value: np.ndarray) -> np.ndarray:
        noise = self.strength * self._rng.normal(size=value.shape)
        if value.dtype == np.uint8:
            return np.rint(value + 255.0 * noise).clip(0, 255).astype(np.uint8)
        return (value + self.scale[name] * noise).astype(value.dtype)


class ActionDelay(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Applies each action some steps later; until then zero, or the first discrete one.

    Args:
        env: The environment to wrap; it is closed with this one.
        strength: Steps, a whole number.
    """

    def __init__(self, env: gym.Env[Any, Any], strength: float) -> None:
        RecordConstructorArgs.__init__(self, strength=strength)
        gym.Wrapper.__init__(self, env)
        if strength < 0 or int(strength) != strength:
            raise UserError(f"An action delay is a whole number of steps, got {strength}.")
        self.delay = int(strength)
        self._waiting: deque[Any] = deque()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode without waiting actions."""
        space: Any = self.action_space
        idle = 0 if isinstance(space, gym.spaces.Discrete) else np.zeros(space.shape, np.float32)
        self._waiting = deque([idle] * self.delay)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        """Apply the action that was given ``delay`` steps before."""
        self._waiting.append(action)
        return self.env.step(self._waiting.popleft())


class ChangedDynamics(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Multiplies masses or gravity by ``1 + strength``, friction or actuators by its inverse.

    Works on MuJoCo models (DeepMind Control, Gymnasium, HumanoidBench) and on Gymnasium's classic
    control.

    Args:
        env: The environment to wrap; it is closed with this one.
        strength: At least 0.
        quantity: ``mass`` (with inertia), ``gravity``, ``friction`` or ``actuator`` (strength).

    Raises:
        UserError: If the environment has no such quantity.
    """

    def __init__(self, env: gym.Env[Any, Any], strength: float, *, quantity: Quantity) -> None:
        RecordConstructorArgs.__init__(self, strength=strength, quantity=quantity)
        gym.Wrapper.__init__(self, env)
        factor = 1.0 + strength
        if quantity in ("friction", "actuator"):
            factor = 1.0 / factor
        model = mujoco_model(env.unwrapped)
        if model is not None:
            _scale_model(model, quantity, factor)
        elif not _scale_attributes(env.unwrapped, quantity, factor):
            raise UserError(
                f"{type(env.unwrapped).__name__} has no {quantity} that could be changed: it is "
                f"neither a MuJoCo model nor has it one of {_ATTRIBUTES[quantity]}."
            )


def mujoco_model(env: Any) -> Any:
    """The ``MjModel`` of an environment; None if MuJoCo does not simulate it."""
    inner = getattr(env, "_env", env)
    model = getattr(getattr(inner, "physics", inner), "model", None)
    model = getattr(model, "ptr", model)
    return model if type(model).__name__ == "MjModel" else None


def _scale_model(model: Any, quantity: Quantity, factor: float) -> None:
    mujoco: Any = importlib.import_module("mujoco")  # it is there where a model is

    if quantity == "mass":
        model.body_mass[:] *= factor
        model.body_inertia[:] *= factor
        mujoco.mj_setConst(model, mujoco.MjData(model))
    elif quantity == "gravity":
        model.opt.gravity[:] *= factor
    elif quantity == "friction":
        model.geom_friction[:] *= factor
    else:
        # Gain and bias together: a position servo gets weaker and keeps its target.
        model.actuator_gainprm[:] *= factor
        model.actuator_biasprm[:] *= factor


def _scale_attributes(env: Any, quantity: Quantity, factor: float) -> bool:
    names = [name for name in _ATTRIBUTES[quantity] if hasattr(env, name)]
    for name in names:
        setattr(env, name, getattr(env, name) * factor)
    if hasattr(env, "masspole") and "masspole" in names:
        env.total_mass = env.masspole + env.masscart
        env.polemass_length = env.masspole * env.length
    return bool(names)
