"""Train a world model on recorded frames of one game and see whether it can foretell them.

A random policy plays; the first four fifths of the frames are trained on, the rest is held out.
From a state that was observed for some steps the model then runs open loop with the recorded
actions, and what it decodes is compared with the frames that came: mean squared error a pixel,
images in [0, 1], next to that of repeating the last frame seen.

    python scripts/recorded_frames.py --agent dreamerv3 --game pong --cpu-seconds 600 --out report

writes ``AGENT_GAME.json`` (errors over CPU time), a curve, and a strip of frames: recorded above,
predicted below. Only the world model learns; time is CPU time of this process.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from agents.imagination_agent import ImaginationAgent
from envs import make_vector, spec_of
from mbrl_flat.cli import compose_run
from mbrl_flat.data.batch import Batch
from mbrl_flat.data.replay import Replay
from mbrl_flat.device import choose_device
from mbrl_flat.run import build_agent
from mbrl_flat.seeding import seed_everything
from mbrl_flat.specs import EnvSpec

mpl.use("Agg")
from matplotlib import pyplot as plt

HORIZON = 10


def main() -> None:
    """Record, train, measure, draw."""
    arguments = _arguments()
    torch.set_num_threads(1)
    seed_everything(arguments.seed)
    config, parts = compose_run(
        f"agent={arguments.agent}",
        "env=atari",
        f"env.task={arguments.game}",
        "preset=cpu",
        f"seed={arguments.seed}",
        "device=cpu",
        *arguments.overrides,
    )
    envs = make_vector(parts.env, num_envs=1, seed=arguments.seed)
    spec = spec_of(envs)
    train, heldout = _record(envs, spec, arguments.frames, arguments.seed)
    agent = build_agent(config, parts, spec, choose_device("cpu"))
    assert isinstance(agent, ImaginationAgent)
    tests = {"train": _slices(train, arguments), "heldout": _slices(heldout, arguments)}
    rows = _learn(agent, train, tests, arguments)
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{arguments.agent}_{arguments.game}"
    stem.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    _draw_curve(rows, stem.with_name(f"{stem.name}_error.png"), arguments)
    _draw_strip(agent, tests["heldout"], stem.with_name(f"{stem.name}_strip.png"), arguments)


def _record(envs: Any, spec: EnvSpec, frames: int, seed: int) -> tuple[Replay, Replay]:
    """Play at random; the first four fifths go to one replay, the rest to another."""
    parts = Replay(spec, frames, complete_only=False), Replay(spec, frames, complete_only=False)
    rng = np.random.default_rng(seed)
    obs = envs.reset()[0]
    begin = True
    for step in range(frames):
        if step == 4 * frames // 5:
            begin = True
        replay = parts[int(step >= 4 * frames // 5)]
        if begin:
            replay.begin(0, {name: value[0] for name, value in obs.items()})
        action = spec.action.random(1, rng)
        obs, reward, terminated, truncated, _ = envs.step(spec.action.to_env(action))
        done = bool(terminated[0] or truncated[0])
        after = {name: value[0] for name, value in obs.items()}
        replay.add(
            0,
            action[0].numpy(),
            float(reward[0]),
            after,
            terminated=bool(terminated[0]),
            done=done,
        )
        begin = done
        if done:
            obs = envs.reset()[0]
    return parts


def _slices(replay: Replay, arguments: argparse.Namespace) -> Batch:
    """Draw the slices that errors are measured on, the same at every time."""
    length = arguments.context + HORIZON
    rng = np.random.default_rng(arguments.seed + 1)
    return replay.sample(arguments.slices, length, rng=rng)


def _learn(
    agent: ImaginationAgent,
    replay: Replay,
    tests: dict[str, Batch],
    arguments: argparse.Namespace,
) -> list[dict[str, float]]:
    """Make steps of the world model alone until the CPU time is over; measure now and then."""
    rng = np.random.default_rng(arguments.seed + 2)
    rows: list[dict[str, float]] = []
    spent, updates, due = 0.0, 0, 0.0
    while True:
        if spent >= due:
            row = {"cpu_seconds": spent, "updates": float(updates)}
            for name, batch in tests.items():
                row |= {f"{name}/{k}": v for k, v in _errors(agent, batch, arguments).items()}
            rows.append(row)
            print("  ".join(f"{k} {v:.3g}" for k, v in row.items()), flush=True)
            due += arguments.every
        if spent >= arguments.cpu_seconds:
            return rows
        start = time.process_time()
        batch = replay.sample(arguments.batch_size, arguments.length, rng=rng, across_episodes=True)
        _step(agent, batch)
        spent += time.process_time() - start
        updates += 1


def _step(agent: ImaginationAgent, batch: Batch) -> None:
    """One optimizer step of the world model, as in the agent's own update."""
    agent.model.train()  # pyright: ignore
    targets = agent.model.targets(batch)

    def closure() -> Tensor:
        agent.optimizer.zero_grad()
        loss = agent.model.loss(batch, targets).loss
        loss.backward()
        return loss.detach()

    agent.optimizer.step(closure)
    agent.model.eval()  # pyright: ignore


@torch.no_grad()
def _foretold(agent: ImaginationAgent, batch: Batch, context: int) -> Tensor:
    """Frames ``[B, HORIZON, C, height, width]`` decoded along the open-loop rollout."""
    latent = agent.posterior(batch)[:, context]
    frames = []
    for k in range(HORIZON):
        latent = agent.predict(latent, batch.action[:, context + k]).latent
        frames.append(next(iter(agent.decode(latent).values())))
    return torch.stack(frames, 1)


def _errors(
    agent: ImaginationAgent, batch: Batch, arguments: argparse.Namespace
) -> dict[str, float]:
    """Squared errors a pixel after 1 and HORIZON steps, and those of repeating the last frame."""
    seen = next(iter(batch.obs.values())).float() / 255.0
    last, actual = seen[:, arguments.context], seen[:, arguments.context + 1 :]
    foretold = _foretold(agent, batch, arguments.context)
    row = {}
    for k in (1, HORIZON):
        row[f"model_{k}"] = float((foretold[:, k - 1] - actual[:, k - 1]).square().mean())
        row[f"copy_{k}"] = float((last - actual[:, k - 1]).square().mean())
    return row


def _draw_curve(rows: list[dict[str, float]], path: Path, arguments: argparse.Namespace) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.0), sharey=True)
    time_spent = [row["cpu_seconds"] / 60.0 for row in rows]
    for axis, k in zip(axes, (1, HORIZON), strict=True):
        for part, style in (("train", "--"), ("heldout", "-")):
            axis.plot(time_spent, [row[f"{part}/model_{k}"] for row in rows], style, label=part)
        axis.axhline(rows[0][f"heldout/copy_{k}"], color="grey", label="copy last frame (heldout)")
        axis.set_yscale("log")
        axis.set_xlabel("CPU minutes, one thread")
        axis.set_title(f"{k} step{'s' if k > 1 else ''} ahead")
    axes[0].set_ylabel("squared error a pixel")
    axes[0].legend(fontsize=7)
    figure.suptitle(f"{arguments.agent}, {arguments.frames} random frames of {arguments.game}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_strip(
    agent: ImaginationAgent, batch: Batch, path: Path, arguments: argparse.Namespace
) -> None:
    """Recorded frames above, open-loop predictions below, of the first three slices."""
    seen = next(iter(batch.obs.values())).float() / 255.0
    actual = seen[:3, arguments.context + 1 :]
    foretold = _foretold(agent, batch, arguments.context)[:3]
    rows = torch.stack([actual, foretold], 1).flatten(0, 1)
    strip = torch.cat([torch.cat(list(row), -1) for row in rows], -2).permute(1, 2, 0)
    large = strip.clamp(0.0, 1.0).numpy().repeat(2, 0).repeat(2, 1)
    plt.imsave(path, large[..., :3] if large.shape[-1] >= 3 else large[..., 0])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default="dreamerv3")
    parser.add_argument("--game", default="pong")
    parser.add_argument("--frames", type=int, default=1000, help="agent steps that are recorded")
    parser.add_argument("--cpu-seconds", type=float, default=600.0)
    parser.add_argument("--every", type=float, default=30.0, help="CPU seconds between measures")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=12, help="transitions of a training slice")
    parser.add_argument("--context", type=int, default=5, help="observed steps before a rollout")
    parser.add_argument("--slices", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="recorded_frames")
    parser.add_argument("overrides", nargs="*", help="further settings, as for mbrl-flat-train")
    return parser.parse_args()


if __name__ == "__main__":
    main()
