"""Apply ``on_nonfinite`` to the optimizers that train beside the world model's."""

from torch import Tensor

from mbrl_flat.errors import NonFiniteError
from mbrl_flat.optim.base import FlatOptimizer


def step_allowed(optimizer: FlatOptimizer, norm: Tensor, name: str) -> bool:
    """Check a gradient norm before a step; a skipped step is counted by ``optimizer``.

    Args:
        optimizer: The world model's optimizer, which holds the setting and the count.
        norm: Norm of the whole gradient, a scalar, the same in every process.
        name: What is about to step, for the message.

    Returns:
        True if the norm is finite.

    Raises:
        NonFiniteError: If it is not and ``on_nonfinite=raise``.
    """
    if bool(norm.isfinite()):
        return True
    if optimizer.on_nonfinite == "raise":
        raise NonFiniteError(f"The gradient of the {name} has norm {float(norm)}.")
    optimizer.skipped += 1
    optimizer.last["skipped"] = 1.0
    return False
