"""The processes that ``torchrun`` started for one run: one leads, the others follow.

Process 0 does everything that a run on its own does: it acts, records, draws batches, measures and
writes the run's folder. The others hold the same agent and help with its updates; they know
nothing but what the first one sends.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from mbrl_flat.distributed.batch_shard import Shard
from mbrl_flat.errors import NonFiniteError, UserError
from mbrl_flat.runtime.device import choose_device

_PATIENCE = timedelta(days=1)
"""Those who follow wait through every evaluation; that a process ended is seen at once anyway."""


class ProcessLostError(UserError):
    """Another process of the run is gone."""


class FollowerError(UserError):
    """A process that helps cannot do what the first one can."""


@dataclass(kw_only=True)
class Processes:
    """The processes of one run, as one of them sees them.

    Attributes:
        rank: Which one this is; 0 leads.
        count: How many there are.
        local_rank: Which one of this machine.
        local_count: How many there are on this machine.
        in_step: Whether all of them are amid an update, and so cannot listen.
        told: Whether this one follows and knows what is to be done.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    in_step: bool = field(default=False, init=False)
    told: bool = field(default=False, init=False)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that acts, measures and writes."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """This process's rows of a batch."""
        return Shard(self.rank, self.count)

    def device(self, name: str) -> torch.device:
        """The device of this process: the name's, and of several GPUs the one of its number.

        Args:
            name: What the user wrote; see ``choose_device``.

        Returns:
            The device.

        Raises:
            UserError: If there is none for this process.
        """
        device = choose_device(name)
        if self.count == 1 or device.type == "cpu":
            return device
        several = device.type == "cuda" and ":" not in name
        there = torch.cuda.device_count() if several else 1
        if self.local_count > there:
            raise UserError(
                f"device={name} is {there} for the {self.local_count} processes of this machine; "
                f"start as many processes as there are GPUs, or use device=cpu."
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device(device.type, self.local_rank)

    def send(self, message: object) -> None:
        """Tell all who follow; ``None`` dismisses them."""
        if self.count > 1:
            dist.broadcast_object_list([message], src=0, device=torch.device("cpu"))

    def receive(self) -> Any:
        """Wait for what process 0 sends."""
        box: list[Any] = [None]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        self.told = True
        return box[0]

    @contextmanager
    def step(self) -> Iterator[None]:
        """Mark an update; it ends alike in all processes if it ends by ``NonFiniteError``."""
        self.in_step = True
        try:
            yield
        except NonFiniteError:
            self.in_step = False
            raise
        self.in_step = False


def is_launched() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return (
        dist.is_available()
        and dist.is_torchelastic_launched()
        and int(os.environ["WORLD_SIZE"]) > 1
    )


def repeats_the_first(error: BaseException) -> bool:
    """Whether process 0 says this already."""
    follows = is_launched() and int(os.environ["RANK"]) > 0
    return follows and not isinstance(error, ProcessLostError | FollowerError)


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the others that ``torchrun`` started; without it this process is alone.

    Yields:
        The processes. When the body of process 0 ends, for whatever reason, the others are
        dismissed.

    Raises:
        ProcessLostError: If one of them is gone.
        FollowerError: If the user can correct what this one alone cannot do.
    """
    if not is_launched():
        yield Processes()
        return
    names = {"rank": "RANK", "count": "WORLD_SIZE"}
    names |= {"local_rank": "LOCAL_RANK", "local_count": "LOCAL_WORLD_SIZE"}
    processes = Processes(**{key: int(os.environ[name]) for key, name in names.items()})
    try:
        with_cuda = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if with_cuda else "gloo", timeout=_PATIENCE)
        yield processes
    except BaseException as error:
        if _means_loss(error):
            raise ProcessLostError(
                f"Another process of this run has ended, so process {processes.rank} of "
                f"{processes.count} ends too; resume it by resume=runs/NAME."
            ) from error
        if processes.leads and not processes.in_step:
            with suppress(RuntimeError):
                processes.send(None)
        # The first process found nothing wrong before it told this one what to do, and what goes
        # wrong amid a step does so in all of them.
        if processes.told and not processes.in_step and isinstance(error, UserError | OSError):
            raise FollowerError(
                f"Process {processes.rank} of {processes.count} on {socket.gethostname()}: {error}"
            ) from error
        raise
    if processes.leads:
        processes.send(None)
    dist.destroy_process_group()


def _means_loss(error: BaseException) -> bool:
    """Whether a message did not come through; gloo says so in a plain ``RuntimeError``."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error).lower()
