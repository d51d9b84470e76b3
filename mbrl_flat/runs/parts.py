"""The pluggable parts of a run, each still to be given its runtime arguments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import Env
from gymnasium.vector import VectorEnv

from mbrl_flat.diagnostics.probe import Probe
from mbrl_flat.interfaces import Agent
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runtime.compilation import pays, use_compile_cache
from mbrl_flat.runtime.device import use_tf32
from mbrl_flat.runtime.seeding import seed_everything
from mbrl_flat.specs import EnvSpec


class VectorFunctions(Protocol):
    """What a run needs to know of vector environments; implemented beside the environments."""

    make_vector: Callable[..., VectorEnv[Any, Any, Any]]
    """``make_vector(factory, *, num_envs, seed, parallel=False, render=False)``, no autoreset."""
    spec_of: Callable[[Any], EnvSpec]
    """Shapes of one of the environments."""
    vector_state: Callable[[Any], Any]
    """Everything that their future depends on."""
    restore_vector: Callable[[Any, Any], dict[str, np.ndarray]]
    """Put that back and return the current observations."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The pluggable parts of a run, each still to be given its runtime arguments.

    Attributes:
        agent: ``agent(spec, optimizer=..., device=..., compile=...)``.
        baseline: Likewise, the agent that returns are compared with.
        env: Makes one environment; where there are several tasks it takes the ``index`` of one.
        optimizer: Makes the world model's optimizer.
        probes: Diagnostics by name.
        vectors: How environments are put side by side.
    """

    agent: Callable[..., Agent]
    baseline: Callable[..., Agent]
    env: Callable[..., Env[Any, Any]]
    optimizer: Callable[..., Any]
    probes: Mapping[str, Probe]
    vectors: VectorFunctions


def build_agent(
    config: RunConfig, parts: Parts, spec: EnvSpec, device: torch.device, *, sync: str = "none"
) -> Agent:
    """Build the agent with freshly seeded weights; ``sync`` as in ``StepOptions``."""
    seed_everything(config.seed)
    if device.type == "cuda":
        use_tf32(config.tf32)
    compile = pays(config.compile, device, steps=config.steps)
    if compile:
        use_compile_cache()
    optimizer = partial(parts.optimizer, on_nonfinite=config.on_nonfinite, sync=sync)
    return parts.agent(spec, optimizer=optimizer, device=device, compile=compile)
