"""One update over several processes: hand out the rows of a batch, and learn on them together.

Every process has the same weights, optimizer state and random streams, and moves them alike;
``rows.py`` says how what a row alone does not determine is shared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch
from torch import Tensor
from torch.distributed import all_gather, all_reduce, broadcast, scatter

from mbrl_flat.data.batch import Batch
from mbrl_flat.distributed.batch_shard import use_shard
from mbrl_flat.distributed.processes import Processes
from mbrl_flat.errors import NonFiniteError, UserError
from mbrl_flat.interfaces import Agent, Metrics
from mbrl_flat.runtime.interrupts import stop_requests
from mbrl_flat.specs import EnvSpec

_CHECK_EVERY = 1000
"""Updates between two looks at whether all processes still have the same weights."""


@dataclass(frozen=True, kw_only=True)
class AgentBytes:
    """Announces the state of the agent.

    Attributes:
        size: Its length.
    """

    size: int


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """Announces the rows of one update.

    Attributes:
        streams: Torch's random streams before it.
        fields: Shape and type of each process's part, by the name of the field.
        device: Type of the device that the parts come from.
    """

    streams: list[Tensor]
    fields: dict[str, tuple[tuple[int, ...], torch.dtype]]
    device: str


class SplitUpdate:
    """The update of process 0, to be called in place of ``agent.update``.

    Args:
        agent: Who learns.
        spec: The environment's shapes, for those who follow.
        processes: Who shares the work.
        device: The agent's.

    Raises:
        UserError: If the agent's batches cannot be split.
    """

    def __init__(
        self, agent: Agent, spec: EnvSpec, processes: Processes, device: torch.device
    ) -> None:
        if agent.batch_coupling:
            raise UserError(
                f"This agent cannot learn in {processes.count} processes, because "
                f"{agent.batch_coupling} needs the whole batch; start it in one."
            )
        if agent.batch_size % processes.count != 0:
            raise UserError(
                f"batch_size={agent.batch_size} cannot be split into {processes.count} equal "
                f"parts, one for each process; choose a multiple of {processes.count}."
            )
        self.agent, self.processes, self.device = agent, processes, device
        self.updates = 0
        processes.send(spec)

    def __call__(self, batch: Batch) -> Metrics:
        """Update on a batch of all rows, with all processes; metrics are means over them."""
        if self.updates == 0:
            self._send_agent()
        parts = _split(batch, self.processes.count)
        fields = {name: (tuple(rows[0].shape), rows[0].dtype) for name, rows in parts.items()}
        device = batch.action.device.type
        self.processes.send(
            ShardLayout(streams=_streams(self.device), fields=fields, device=device)
        )
        self.updates += 1
        with self.processes.step():
            own = {name: _scattered(rows[0], rows) for name, rows in parts.items()}
            return _update(self.agent, _joined(own), self.processes, self.updates)

    def _send_agent(self) -> None:
        file = BytesIO()
        torch.save(self.agent.state_dict(), file)
        content = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
        self.processes.send(AgentBytes(size=len(content)))
        broadcast(content, src=0)


def follow(
    make_agent: Callable[[EnvSpec], Agent], processes: Processes, device: torch.device
) -> None:
    """Do the updates that process 0 asks for, until it dismisses this one.

    Args:
        make_agent: Builds the agent for an environment's shapes.
        processes: Who shares the work.
        device: The agent's.
    """
    # Only process 0 stops the run, after it has saved it.
    with stop_requests(answer=False):
        spec = processes.receive()
        if spec is None:
            return
        agent, updates = make_agent(spec), 0
        while (order := processes.receive()) is not None:
            if isinstance(order, AgentBytes):
                agent.load_state_dict(_receive_agent(order, device))
                continue
            updates += 1
            rows = _receive_rows(order, device)
            _set_streams(order.streams, device)
            try:
                with processes.step():
                    _update(agent, rows, processes, updates)
            except NonFiniteError:
                continue


def _update(agent: Agent, batch: Batch, processes: Processes, updates: int) -> Metrics:
    with use_shard(processes.shard):
        metrics = agent.update(batch)
    if updates % _CHECK_EVERY == 0:
        _check_equal(agent.param_norm(), processes.count)
    return _mean(metrics, processes.count, batch.action.device)


def _check_equal(norm: Tensor, count: int) -> None:
    norms = [torch.empty_like(norm) for _ in range(count)]
    all_gather(norms, norm)
    if any(not torch.equal(other, norms[0]) for other in norms):
        raise UserError(
            f"The weights of the processes have drifted apart: their norms are "
            f"{[float(other) for other in norms]}; resume from the last checkpoint, with devices "
            f"of one kind in all processes."
        )


def _mean(metrics: Metrics, count: int, device: torch.device) -> Metrics:
    """Means over the processes, in one message."""
    if not metrics:
        return metrics
    values = [torch.as_tensor(value, dtype=torch.float64) for value in metrics.values()]
    joined = torch.stack([value.detach().to(device) for value in values])
    all_reduce(joined)
    return dict(zip(metrics, (joined / count).unbind(), strict=True))


def _split(batch: Batch, count: int) -> dict[str, list[Tensor]]:
    """The parts of every field, by name; those of observations are named ``obs/...``."""
    fields = {f"obs/{name}": value for name, value in batch.obs.items()}
    fields |= {
        name: getattr(batch, name)
        for name in ("action", "reward", "terminated", "is_first")
        if getattr(batch, name) is not None
    }
    return {name: list(value.chunk(count)) for name, value in fields.items()}


def _joined(fields: dict[str, Tensor]) -> Batch:
    obs = {name[4:]: value for name, value in fields.items() if name.startswith("obs/")}
    others: dict[str, Any] = {n: v for n, v in fields.items() if not n.startswith("obs/")}
    return Batch(obs=obs, **others)


def _scattered(like: Tensor, parts: list[Tensor] | None) -> Tensor:
    """Hand out or receive one field, as bytes: not every backend knows every type."""
    own = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    whole = None
    if parts is not None:
        whole = [part.contiguous().view(torch.uint8) for part in parts]
    scatter(own.view(torch.uint8), whole, src=0)
    return own


def _receive_rows(order: ShardLayout, device: torch.device) -> Batch:
    source = device if order.device == device.type else torch.device("cpu")
    empty = {
        name: torch.empty(shape, dtype=dtype, device=source)
        for name, (shape, dtype) in order.fields.items()
    }
    return _joined({name: _scattered(like, None) for name, like in empty.items()})


def _receive_agent(order: AgentBytes, device: torch.device) -> dict[str, Any]:
    content = torch.empty(order.size, dtype=torch.uint8)
    broadcast(content, src=0)
    file = BytesIO(content.numpy().tobytes())
    return torch.load(file, map_location=device, weights_only=True)


def _streams(device: torch.device) -> list[Tensor]:
    """The streams that an update draws from: torch's on the CPU and on the agent's device."""
    states = [torch.get_rng_state()]
    return states if device.type != "cuda" else [*states, torch.cuda.get_rng_state(device)]


def _set_streams(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)
