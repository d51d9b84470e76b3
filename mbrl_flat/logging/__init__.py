"""Where metrics go: JSON lines always, console and Weights & Biases beside them."""

from mbrl_flat.logging.console import ConsoleLogger
from mbrl_flat.logging.jsonl import JsonlLogger, read_metrics
from mbrl_flat.logging.multi import MultiLogger
from mbrl_flat.logging.wandb import WandbLogger, WandbMode

__all__ = [
    "ConsoleLogger",
    "JsonlLogger",
    "MultiLogger",
    "WandbLogger",
    "WandbMode",
    "read_metrics",
]
