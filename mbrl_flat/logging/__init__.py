"""Where metrics go: JSON lines always, console and Weights & Biases beside them."""

from mbrl_flat.logging.console import ConsoleLogger as ConsoleLogger
from mbrl_flat.logging.jsonl import JsonlLogger as JsonlLogger
from mbrl_flat.logging.jsonl import read_metrics as read_metrics
from mbrl_flat.logging.multi import MultiLogger as MultiLogger
from mbrl_flat.logging.wandb import WandbLogger as WandbLogger
from mbrl_flat.logging.wandb import WandbMode as WandbMode
