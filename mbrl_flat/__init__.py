"""Model-based reinforcement learning for studying and using flat minima."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbrl_flat.cli.python_interface import STORM, TDMPC2, TWISTER, DreamerV3

__version__ = "0.1.0"
__all__ = ["STORM", "TDMPC2", "TWISTER", "DreamerV3"]


def __getattr__(name: str) -> Any:
    """The agents, imported on first use: optimizers alone need none of what they need."""
    if name not in __all__:
        raise AttributeError(f"module 'mbrl_flat' has no attribute {name!r}")
    return getattr(import_module("mbrl_flat.cli.python_interface"), name)
