"""Look closely at the agent of a run that is over, or paused: every diagnostic, on request.

A probe is applied to what it asks for: the replay (sharpness, rollout errors), whole episodes
(value errors), or the loss itself (landscape). The run is only read; results go beside it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mbrl_flat.data.episode import Episode
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.inspection import measured_weights
from mbrl_flat.diagnostics.landscape_plots import draw_slice
from mbrl_flat.diagnostics.open_loop_probe import OpenLoopProbe
from mbrl_flat.diagnostics.value_estimates import with_critic
from mbrl_flat.errors import UserError
from mbrl_flat.evaluation.episodes import evaluate
from mbrl_flat.interfaces import Agent, Decodes, Inspectable, Mode
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.parts import Parts, build_agent
from mbrl_flat.runtime.device import choose_device, use_threads
from mbrl_flat.training.checkpoint import CheckpointFolder


@dataclass(frozen=True, kw_only=True)
class ProbedRun:
    """What there is to look at.

    Attributes:
        agent: The agent of the newest checkpoint.
        replay: Its replay.
        play: Plays whole episodes in a mode.
        folder: Where files may be written.
        step: Step of the checkpoint.
        seed: Determines batches.
    """

    agent: Any
    replay: Replay
    play: Callable[[Mode], list[Episode]]
    folder: Path
    step: int
    seed: int


def probe_run(
    config: RunConfig,
    parts: Parts,
    folder: Path,
    *,
    name: str,
    probe: Any,
    episodes: int,
    seed: int,
) -> dict[str, float]:
    """Apply one probe to the newest checkpoint of a run.

    Args:
        config: The run's configuration.
        parts: Its pluggable parts.
        folder: The run's folder; the row is appended to its ``probes.jsonl``.
        name: Name of the probe in ``configs/probe``.
        probe: What that configuration builds.
        episodes: Episodes for probes that play.
        seed: Determines episodes and batches.

    Returns:
        The row of metrics.

    Raises:
        UserError: If the agent cannot be looked into, or there is nothing to measure on yet.
    """
    device = choose_device(config.device)
    use_threads(config.threads)
    saved = CheckpointFolder(folder / "checkpoints").load_latest(device=device)
    envs = parts.vectors.make_vector(parts.env, num_envs=episodes, seed=seed)
    spec = parts.vectors.spec_of(envs)
    if spec.tasks and name == "value_error":
        raise UserError(
            "probe=value_error plays one task, and this run has several; mbrl-flat-evaluate gives "
            "the value errors of each."
        )
    agent: Agent = build_agent(config, parts, spec, device)
    if not isinstance(agent, Inspectable):
        raise UserError("The agent of this run has no world model to look into.")
    agent.load_state_dict(saved["agent"])
    replay = Replay(spec, config.replay_capacity, num_envs=config.num_envs)
    CheckpointFolder(folder / "checkpoints").read_replay(saved, replay)

    def play(mode: Mode) -> list[Episode]:
        return evaluate(agent, envs, spec, episodes=episodes, seed=seed, mode=mode, device=device)

    run = ProbedRun(
        agent=agent, replay=replay, play=play, folder=folder, step=int(saved["step"]), seed=seed
    )
    row = dict(_APPLY.get(name, _on_replay)(probe, run))
    envs.close()
    if not row and isinstance(probe, OpenLoopProbe) and not isinstance(agent, Decodes):
        raise UserError(
            f"probe={name} shows what the model's decoder expects to see, and the agent of "
            f"{folder} has none; probe=rollout_error measures such rollouts in its latents."
        )
    if not row:
        raise UserError(
            f"probe={name} found nothing to measure on in {folder}: no episode of the kind it "
            f"needs is in the replay; train longer, or with heldout_fraction above 0."
        )
    entry = {"probe": name, "step": run.step, "seed": seed, **row}
    with (folder / "probes.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    return row


def _on_replay(probe: Any, run: ProbedRun) -> Mapping[str, float]:
    return probe(run.agent, run.replay)


def _value_error(probe: Any, run: ProbedRun) -> Mapping[str, float]:
    """The three estimates that a reader may mean: see ``diagnostics/value_error.py``."""
    discount = run.agent.discount
    followed, planned = run.play("policy"), run.play("eval")
    mixed = [with_critic(run.agent, episode) for episode in planned]
    parts = {"value": followed, "planner": planned, "mixed": mixed}
    return {
        f"probe/{kind}/{key}": value
        for kind, episodes in parts.items()
        for key, value in probe(episodes, discount).items()
    }


def _landscape(probe: Any, run: ProbedRun) -> Mapping[str, float]:
    """A slice of the loss, as an array and a picture in the run's folder."""
    agent, rng = run.agent, np.random.default_rng(run.seed)
    batch = run.replay.sample(agent.batch_size, agent.sequence_length, rng=rng)
    with measured_weights(agent):
        found = probe(agent.probe_loss(batch))
    stem = run.folder / "plots" / f"landscape_{run.step:09d}"
    stem.parent.mkdir(exist_ok=True)
    np.savez(stem.with_suffix(".npz"), distances=found.distances, losses=found.losses)
    draw_slice(found, stem.with_suffix(".png"), title=f"{run.folder.name}, step {run.step}")
    losses = torch.from_numpy(np.asarray(found.losses))
    return {
        "probe/landscape/centre": float(losses.flatten()[losses.numel() // 2]),
        "probe/landscape/lowest": float(losses.min()),
        "probe/landscape/highest": float(losses.max()),
    }


_APPLY: dict[str, Callable[[Any, ProbedRun], Mapping[str, float]]] = {
    "value_error": _value_error,
    "landscape": _landscape,
}
