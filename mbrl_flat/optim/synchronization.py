"""Averages over the processes of a data-parallel run, without wrapping the model."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed import (
    ReduceOp,
    all_gather,
    all_reduce,
    broadcast,
    get_rank,
    get_world_size,
    is_available,
    is_initialized,
)

from mbrl_flat.distributed.batch_shard import current_shard
from mbrl_flat.errors import UserError


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return is_available() and is_initialized()


def average_gradients(params: Sequence[Tensor], loss: Tensor) -> Tensor:
    """Average gradients over the processes, in place, in one message.

    Every process has to have the same parameters. A parameter without a gradient in some processes
    counts as zero there; one without a gradient anywhere keeps none.

    Args:
        params: Parameters in the same order everywhere.
        loss: Loss of this process, a scalar.

    Returns:
        The mean loss, so that all processes judge alike whether a step is finite.

    Raises:
        UserError: If there is no process group.
    """
    _check_distributed()
    trained = [p for p in params if p.requires_grad or p.grad is not None]
    message, sizes = _packed(trained, loss)
    all_reduce(message, ReduceOp.SUM)
    *means, anywhere, mean_loss = (message / get_world_size()).split(sizes)
    for param, part, count in zip(trained, means, anywhere.tolist(), strict=True):
        param.grad = part.view_as(param).to(param.dtype, copy=True) if count > 0.0 else None
    return mean_loss.squeeze(0)


def _packed(params: Sequence[Tensor], loss: Tensor) -> tuple[Tensor, list[int]]:
    """Gradients, whether each is there, and the loss in one vector; and the sizes of its parts."""
    present = torch.tensor([float(p.grad is not None) for p in params]).to(loss)
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
    message = torch.cat([*[part.flatten() for part in parts], present, loss.reshape(1)])
    return message, [*[part.numel() for part in parts], len(parts), 1]


def process_rank(*, of: int) -> int:
    """Rank of this process among a number of them.

    Args:
        of: How many there have to be.

    Returns:
        The rank.

    Raises:
        UserError: If there are more or fewer.
    """
    count = get_world_size() if is_distributed() else 1
    if count != of:
        raise UserError(
            f"parallel=true is for {of} processes, and there are {count}; use torchrun."
        )
    return get_rank()


def exchange_gradients(
    params: Sequence[nn.Parameter], loss: Tensor
) -> list[tuple[dict[nn.Parameter, Tensor], Tensor]]:
    """Give every process the gradients and the loss of each, in the order of their ranks.

    Args:
        params: Parameters in the same order everywhere.
        loss: Loss of this process, a scalar.

    Returns:
        For each process, its gradients by parameter and its loss.

    Raises:
        UserError: If there is no process group.
    """
    _check_distributed()
    message, sizes = _packed(params, loss)
    messages = [torch.empty_like(message) for _ in range(get_world_size())]
    all_gather(messages, message)
    found = []
    for received in messages:
        *grads, there, far_loss = received.split(sizes)
        kept = zip(params, grads, there.tolist(), strict=True)
        by_param = {p: g.view_as(p).to(p.dtype) for p, g, count in kept if count > 0.0}
        found.append((by_param, far_loss.squeeze(0)))
    return found


def share_generator(generator: torch.Generator, device: torch.device) -> None:
    """Let all processes draw what the first one would.

    Args:
        generator: To be set to the state of that of the first process.
        device: Where messages between processes lie.

    Raises:
        UserError: If there is no process group.
    """
    _check_distributed()
    state = generator.get_state().to(device)
    broadcast(state, src=0)
    generator.set_state(state.cpu())


def _check_distributed() -> None:
    if not is_distributed():
        raise UserError(
            "sync=global and sync=local are for the processes of a run under torchrun, and "
            "torch.distributed has no process group; call init_process_group, or leave sync=none."
        )


def average_over_rows(params: Sequence[Tensor], loss: Tensor) -> None:
    """Make gradients of means over own rows those of the mean over all rows."""
    if current_shard().count > 1:
        average_gradients(params, loss.detach())
