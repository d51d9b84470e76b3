"""What a run is, in its first lines."""

from pathlib import Path

import torch
from torch import nn

from mbrl_flat.interfaces import Agent
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.training.trainer import Trainer


def count_parameters(agent: Agent) -> int:
    """Trained numbers of an agent's networks; target networks do not count."""
    modules = [value for value in vars(agent).values() if isinstance(value, nn.Module)]
    trained = {p for module in modules for p in module.parameters() if p.requires_grad}
    return sum(p.numel() for p in trained)


def describe_run(
    config: RunConfig, trainer: Trainer, folder: Path, device: torch.device
) -> list[str]:
    """Agent, task, optimizer, device, length and folder, in four lines.

    Args:
        config: The run's configuration.
        trainer: Before its first step.
        folder: The run's folder.
        device: Where it learns.

    Returns:
        The lines.
    """
    names, agent = config.names, trainer.agent
    parameters = count_parameters(agent)
    what = f"{parameters / 1e6:.2f}M parameters" if parameters else "no parameters"
    threads, repeat = torch.get_num_threads(), trainer.collector.action_repeat
    radius = "".join(
        f", {key}={config.optimizer[key]}"
        for key in ("rho", "sigma")
        if config.optimizer.get(key) is not None
    )
    where = f"{device.type}, {threads} {'thread' if threads == 1 else 'threads'}"
    steps, first = trainer.config.steps, trainer.config.seed_steps
    learns = ""
    if parameters and first:
        learns = f", {first:,} random, then {first * config.updates_per_step:,.0f} updates at once"
    lines = {
        "agent": f"{names.get('agent', type(agent).__name__)}, {what}, preset {config.preset}",
        "task": f"{names.get('env', 'env')} {names.get('task', '')}, seed {config.seed}",
        "optimizer": f"{names.get('optimizer', '') + radius if parameters else 'none'}, on {where}",
        "length": f"{steps:,} steps ({steps * repeat:,} frames){learns}",
        "folder": str(folder),
    }
    return [f"{name:10} {text}" for name, text in lines.items()]
