"""Write what a trained agent does as a program that runs without mbrl_flat.

A program takes observations, the agent's state and where an episode begins, and gives actions and
the next state. ``policy`` is the policy alone; ``planner`` is what evaluation plays with TD-MPC2.
"""

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mbrl_flat.errors import UserError, require_extra
from mbrl_flat.interfaces import Agent, AgentState, Mode, Observation, TrainsWithOneOptimizer
from mbrl_flat.models import kernels
from mbrl_flat.optim.averaging import evaluation_params
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.loading import load_saved_agent
from mbrl_flat.runs.parts import Parts
from mbrl_flat.runtime.files import check_writable, replaced_whole, write_text_atomically
from mbrl_flat.settings import check_number
from mbrl_flat.specs import EnvSpec

FORMATS = ("torch", "onnx")
_DRAWS = {torch.randn: "normal", torch.rand: "uniform", torch.randperm: "permutation"}
"""The random draws of acting, and what an entry of ``export.json`` calls them."""


@runtime_checkable
class _Plans(Protocol):
    planner: Any
    optimizer: torch.optim.Optimizer


class _Recorder(TorchFunctionMode):
    """Notes every random draw, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[tuple[str, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = func(*args, **(kwargs or {}))
        if func in _DRAWS:
            self.draws.append((_DRAWS[func], drawn))
        return drawn


class _Replayer(TorchFunctionMode):
    """Gives these tensors in place of random draws, in order."""

    def __init__(self, draws: list[Tensor]) -> None:
        super().__init__()
        self._left = iter(draws)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return next(self._left) if func in _DRAWS else func(*args, **(kwargs or {}))


class Acting(nn.Module):
    """``act`` of an agent, with the reset of its state, as a function of tensors.

    Args:
        agent: On the CPU.
        mode: What it does; see ``Agent.act``.
    """

    def __init__(self, agent: Agent, mode: Mode) -> None:
        super().__init__()
        self._agent = agent
        self._mode: Mode = mode

    def forward(
        self,
        obs: Observation,
        state: AgentState,
        is_first: Tensor,
        draws: list[Tensor] | None = None,
    ) -> tuple[Tensor, AgentState]:
        """Choose actions.

        Args:
            obs: Observations ``[N, ...]``.
            state: What the last call returned; any numbers where ``is_first``.
            is_first: Where an episode begins, bool ``[N]``.
            draws: The random numbers, in the order of ``draws_of``; torch's own by default.

        Returns:
            Actions ``[N, A]`` as the environment's spec sees them, and the next state.
        """
        state = self._agent.reset_state(state, is_first)
        if draws is None:
            return self._agent.act(obs, state, mode=self._mode, generator=None)
        with _Replayer(draws):
            return self._agent.act(obs, state, mode=self._mode, generator=None)


def example_inputs(
    agent: Agent, spec: EnvSpec, rows: int
) -> tuple[Observation, AgentState, Tensor]:
    """Inputs of a program for ``rows`` environments: zeros, and every episode about to begin."""
    obs = {
        name: torch.zeros(rows, *shape, dtype=torch.uint8 if name in spec.images else torch.float32)
        for name, shape in spec.observed.items()
    }
    return obs, agent.initial_state(rows), torch.ones(rows, dtype=torch.bool)


def draws_of(acting: Acting, inputs: tuple[Any, ...]) -> list[tuple[str, Tensor]]:
    """Kind and values of the random numbers of one call, in order."""
    with torch.no_grad(), kernels.turned_off():
        acting(*inputs)  # What is drawn once and kept is no input.
        with _Recorder() as recorder:
            acting(*inputs)
    return recorder.draws


def programs_of(agent: Agent) -> dict[str, Acting]:
    """The programs that an agent can be exported as, by name."""
    if isinstance(agent, _Plans):
        return {"policy": Acting(agent, "policy"), "planner": Acting(agent, "eval")}
    return {"policy": Acting(agent, "eval")}


def export_program(acting: Acting, inputs: tuple[Any, ...]) -> torch.export.ExportedProgram:
    """Trace a program for inputs of these shapes.

    Args:
        acting: The module that maps observations and state to actions and the next state.
        inputs: Tensors of the shapes that the program will take.

    Returns:
        The program; its weights are constants in it.
    """
    with torch.no_grad(), kernels.turned_off():
        acting(*inputs)  # What is computed once and kept must not be traced.
        return torch.export.export(acting, inputs, strict=False)


def export_run(
    config: RunConfig,
    parts: Parts,
    folder: Path,
    *,
    format: str,
    checkpoint: str,
    rows: int,
    out: Path,
) -> list[Path]:
    """Export the agent of a run.

    Args:
        config: The run's configuration.
        parts: Its pluggable parts.
        folder: The run's folder.
        format: ``torch`` or ``onnx``.
        checkpoint: ``latest`` or ``best``.
        rows: Observations that a program takes at once.
        out: Folder of the files.

    Returns:
        The files written: a program each and ``export.json``, which describes their inputs.

    Raises:
        UserError: If a value is not allowed or the agent cannot be exported.
    """
    if format not in FORMATS:
        raise UserError(f"format must be torch or onnx, got {format!r}.")
    check_number("rows", rows, "[1, inf)", whole=True)
    if format == "onnx":
        require_extra("onnx", "onnx", "onnxscript")
    check_writable(out)
    loaded = load_saved_agent(
        config, parts, folder, checkpoint, device=torch.device("cpu"), seed=config.seed
    )
    agent, spec = loaded.agent, loaded.spec
    if not isinstance(agent, TrainsWithOneOptimizer):
        raise UserError(f"agent={config.names.get('agent')} has no network to export.")
    out.mkdir(parents=True, exist_ok=True)
    files, described = [], {}
    with evaluation_params(agent.optimizer):
        for name, acting in programs_of(agent).items():
            inputs = example_inputs(agent, spec, rows)
            file, described[name] = _WRITERS[format](acting, inputs, out / name)
            files.append(file)
    described |= {"run": str(folder), "checkpoint": checkpoint, "step": loaded.step}
    write_text_atomically(out / "export.json", json.dumps(described, indent=2) + "\n")
    return [*files, out / "export.json"]


def write_torch(acting: Acting, inputs: tuple[Any, ...], path: Path) -> tuple[Path, Any]:
    """Write a ``torch.export`` program; returns its file and a description of its inputs."""
    file = path.with_suffix(".pt2")
    program = export_program(acting, inputs)
    with replaced_whole(file) as opened:
        torch.export.save(program, opened)
    return file, {"file": file.name, "inputs": _described(inputs)}


def write_onnx(acting: Acting, inputs: tuple[Any, ...], path: Path) -> tuple[Path, Any]:
    """As ONNX, whose random numbers differ from torch's: they are inputs."""
    file, draws = path.with_suffix(".onnx"), draws_of(acting, inputs)
    given = (*inputs, [values for _, values in draws])
    # Warnings are those of the exporter's own code, its log names packages that nothing here uses.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(export_program(acting, given), dynamo=True, verbose=False)
    if program is None:
        raise UserError("torch.onnx.export gave no program.")
    names = [*_described(inputs), *(f"draw_{i}" for i in range(len(draws)))]
    for value, name in zip(program.model.graph.inputs, names, strict=True):
        value.name = name
    outputs = ["action", *(f"next_state.{name}" for name in inputs[1])]
    for value, name in zip(program.model.graph.outputs, outputs, strict=True):
        value.name = name
    program.save(file)
    kinds = {f"draw_{i}": (kind, values) for i, (kind, values) in enumerate(draws)}
    described = {k: {"kind": kind, **_tensor(values)} for k, (kind, values) in kinds.items()}
    return file, {
        "file": file.name, "inputs": _described(inputs) | described, "outputs": outputs,
    }  # fmt: skip


_WRITERS: Mapping[str, Callable[..., tuple[Path, Any]]] = {
    "torch": write_torch,
    "onnx": write_onnx,
}


def _described(inputs: tuple[Observation, AgentState, Tensor]) -> dict[str, Any]:
    obs, state, is_first = inputs
    named = {f"obs.{k}": v for k, v in obs.items()} | {f"state.{k}": v for k, v in state.items()}
    return {name: _tensor(value) for name, value in (named | {"is_first": is_first}).items()}


def _tensor(value: Tensor) -> dict[str, Any]:
    return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
