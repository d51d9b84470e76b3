"""What learns behind the world model is stopped or skipped as the model is, by ``on_nonfinite``."""

from torch import Tensor

from mbrl_flat.errors import NonFiniteError
from mbrl_flat.optim.base import FlatOptimizer


def admits(optimizer: FlatOptimizer, norm: Tensor, name: str) -> bool:
    """Whether a step may be made; one that may not is counted among the optimizer's skipped ones.

    Args:
        optimizer: The world model's.
        norm: Of the whole gradient of what is to step, the same in every process.
        name: What is to step, for the message.

    Returns:
        Whether the norm is finite.

    Raises:
        NonFiniteError: If it is not and ``on_nonfinite=raise``.
    """
    if bool(norm.isfinite()):
        return True
    if optimizer.on_nonfinite == "raise":
        raise NonFiniteError(f"The gradient of the {name} has norm {float(norm)}.")
    optimizer.skipped += 1
    return False
