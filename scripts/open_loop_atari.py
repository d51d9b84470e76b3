"""Does a world model tell what comes next in a real game better than "nothing changes"?

Plays a game at random, trains the world model alone (``experiment=recorded_game``) on four fifths
of the frames, and predicts the others, which it has not seen, open-loop: after a context of eight
frames it sees actions, and no frame any more. Of every 200 frames the last 40 are for testing; a
score that only the last frames show could not be learned from the first ones. The error is the
squared one of pixels in [0, 1], summed over an image; the baseline, ``copy``, repeats the last
frame of the context; ``mean`` is the mean image. ``model`` decodes the most likely latent of each
step, which is fed back; ``expected`` is the mean of the images of 16 futures whose latents are
drawn, the prediction of least squared error if the model is right. ``model_0`` is what the model
makes of the last frame that it sees.

The model sees what differs from the mean image of the training frames, at half the contrast:
what never moves need not be learned. Errors are those of whole images. Writes ``errors.jsonl``,
``errors.png``, ``strip.png`` (rows: recorded, predicted; columns: steps ahead) and ``video.gif``
(left: recorded, right: predicted; first frame: seen).

    python scripts/open_loop_atari.py --agent twister --game breakout --minutes 10 --out open_loop

Further arguments are settings of ``mbrl-flat-train``, such as ``optimizer=sam model_lr=5e-4``.
"""

import argparse
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mbrl_flat.agents.imagination_agent import ImaginationAgent
from mbrl_flat.analysis.plot_style import (
    PALETTE,
    add_legend,
    log_axis,
    make_panels,
    save_figure,
)
from mbrl_flat.cli.main import compose_run
from mbrl_flat.data.batch import Batch
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.rollout_error import open_loop
from mbrl_flat.envs import make_vector, spec_of
from mbrl_flat.envs.atari import make as make_atari
from mbrl_flat.runs.parts import build_agent
from mbrl_flat.specs import EnvSpec

CONTEXT, STEPS, FUTURES = 8, (1, 10), 16
CURVES = {
    "model": "most likely latents",
    "copy": "last frame repeated",
    "mean": "mean training frame",
    "expected": f"mean of {FUTURES} sampled futures",
}
"""Names of the errors in the figure."""

PERIOD, HELD_OUT = 200, 40
"""Of every so many frames so many at the end are for testing."""


def build(name: str, spec: EnvSpec, settings: list[str]) -> ImaginationAgent:
    """Build an agent of ``experiment=recorded_game``."""
    overrides = ["experiment=recorded_game", f"agent={name}"]
    config, parts = compose_run(*overrides, *settings)
    agent = build_agent(config, parts, spec, torch.device("cpu"))
    assert isinstance(agent, ImaginationAgent)
    return agent


class Contrast:
    """Figures against the mean of some of them.

    Args:
        frames: Those, uint8 ``[N, C, H, W]``.
    """

    def __init__(self, frames: np.ndarray) -> None:
        self.mean = torch.from_numpy(frames.astype(np.float32).mean(0))

    def apply(self, batch: Batch) -> Batch:
        """Show half of the difference, around grey."""
        obs = {
            name: (127.5 + 0.5 * (frames.float() - self.mean)).round().to(torch.uint8)
            for name, frames in batch.obs.items()
        }
        return replace(batch, obs=obs)

    def invert(self, shown: Tensor) -> Tensor:
        """Whole images in [0, 1] ``[..., C, H, W]`` of what was shown, likewise in [0, 1]."""
        return (self.mean / 255.0 + 2.0 * (shown - 0.5)).clamp(0.0, 1.0)


def record(game: str, frames: int, seed: int) -> tuple[EnvSpec, Replay]:
    """Play at random."""
    envs = make_vector(partial(make_atari, game), num_envs=1, seed=seed)
    spec, rng = spec_of(envs), np.random.default_rng(seed)
    replay = Replay(spec, 2 * frames, complete_only=False, seed=seed)
    obs, _ = envs.reset(seed=seed)
    replay.begin(0, {name: value[0] for name, value in obs.items()})
    for _ in range(frames):
        action = spec.action.random(1, rng)
        obs, reward, terminated, truncated, _ = envs.step(spec.action.to_env(action))
        done = bool(terminated[0] or truncated[0])
        after = {name: value[0] for name, value in obs.items()}
        replay.add(
            0, action[0].numpy(), float(reward[0]), after, terminated=bool(terminated[0]), done=done
        )
        if done:
            obs, _ = envs.reset(options={"reset_mask": np.array([True])})
            replay.begin(0, {name: value[0] for name, value in obs.items()})
    envs.close()
    return spec, replay


def beginnings(usable: np.ndarray, length: int) -> np.ndarray:
    """Environment and position ``[M, 2]`` of subsequences of ``length`` usable transitions."""
    wide = np.arange(len(usable) - length)[:, None] + np.arange(length + 1)
    position = np.flatnonzero(usable[wide].all(1))
    return np.stack([np.zeros_like(position), position], 1)


def train_once(agent: ImaginationAgent, batch: Batch) -> float:
    """One step of the world model alone."""
    model = agent.model
    model.train()  # pyright: ignore[reportAttributeAccessIssue]
    targets = model.targets(batch)

    def closure() -> Tensor:
        agent.optimizer.zero_grad()
        loss = model.loss(batch, targets).loss
        loss.backward()
        return loss.detach()

    loss = float(agent.optimizer.step(closure))
    model.eval()  # pyright: ignore[reportAttributeAccessIssue]
    return loss


@torch.no_grad()
def predict(agent: ImaginationAgent, batch: Batch, contrast: Contrast) -> tuple[Tensor, Tensor]:
    """Recorded and predicted images ``[B, K + 1, C, H, W]`` from the end of the context on."""
    posterior = agent.posterior(contrast.apply(batch))
    latent, _, _ = open_loop(agent, posterior[:, CONTEXT], batch.action[:, CONTEXT:])
    told = torch.cat([posterior[:, CONTEXT : CONTEXT + 1], latent], 1)
    (shown,) = agent.decode(told.flatten(0, 1)).values()
    (real,) = batch.obs.values()
    shown = contrast.invert(shown.unflatten(0, told.shape[:2]))
    return real[:, CONTEXT:].float() / 255.0, shown


@torch.no_grad()
def expect(agent: ImaginationAgent, batch: Batch, contrast: Contrast) -> dict[int, Tensor]:
    """Mean images ``[B, C, H, W]`` of futures that are drawn, for each number of steps ahead."""
    model, generator = agent.model, torch.Generator(agent.device).manual_seed(0)
    latent = agent.posterior(contrast.apply(batch))[:, CONTEXT]
    state = model.unpack(latent.repeat_interleave(FUTURES, 0))
    images: dict[int, Tensor] = {}
    for k, action in enumerate(batch.action[:, CONTEXT:].unbind(1), start=1):
        repeated = action.repeat_interleave(FUTURES, 0)
        state = model.imagine(state, repeated, generator=generator)
        if k in STEPS:
            (shown,) = agent.decode(model.pack(state)).values()
            images[k] = contrast.invert(shown).unflatten(0, (-1, FUTURES)).mean(1)
    return images


def errors(
    real: Tensor, shown: Tensor, expected: dict[int, Tensor], mean: Tensor
) -> dict[str, float]:
    """Errors of the model and of both baselines at each number of steps ahead."""
    row: dict[str, float] = {}
    for k in (0, *STEPS):
        guesses = {"model": shown[:, k], "copy": real[:, 0], "mean": mean}
        guesses |= {"expected": expected[k]} if k in expected else {}
        for name, guess in guesses.items():
            each = (guess - real[:, k]).square().sum((1, 2, 3))  # one a subsequence
            row[f"{name}_{k}"] = float(each.mean())
            row[f"{name}_{k}_error"] = float(each.std() / len(each) ** 0.5)
    return row


def draw(rows: list[dict[str, float]], real: Tensor, shown: Tensor, out: Path) -> None:
    """Draw the curve, the first test subsequence as a strip, and a few of them as a video."""
    figure, panels = make_panels(len(STEPS))
    for panel, k in zip(panels, STEPS, strict=True):
        minutes = [row["cpu_seconds"] / 60.0 for row in rows]
        for colour, (name, label) in zip(PALETTE, CURVES.items(), strict=False):
            values = np.array([row[f"{name}_{k}"] for row in rows])
            half = 1.96 * np.array([row[f"{name}_{k}_error"] for row in rows])
            panel.plot(minutes, values, color=colour, label=label)
            panel.fill_between(
                minutes, values - half, values + half, color=colour, alpha=0.15, linewidth=0
            )
        log_axis(panel)
        panel.set(
            xlabel="CPU minutes",
            ylabel="summed squared error",
            title=f"{k} step{'s' * (k > 1)} ahead",
        )
    add_legend(*panels)
    save_figure(figure, out / "errors.png")
    save_figure(
        draw_strip(*((part[0] * 255.0).byte() for part in (real, shown))), out / "strip.png"
    )
    pairs = torch.cat([real, shown], -1)[:: max(1, len(real) // 4)].flatten(0, 1)
    video = [
        Image.fromarray(pair).resize((256, 128), Image.Resampling.NEAREST)
        for pair in (pairs.permute(0, 2, 3, 1) * 255.0).byte().numpy()
    ]
    video[0].save(out / "video.gif", save_all=True, append_images=video[1:], duration=250, loop=0)


def draw_strip(real: Tensor, shown: Tensor, *, every: int = 2) -> Figure:
    """Recorded frames above predicted ones, each row and each column named.

    Args:
        real: uint8 ``[K + 1, C, H, W]``, from the last frame that the model has seen.
        shown: The same, predicted.
        every: Show each second, third, ... step: more than six are too small to see.

    Returns:
        The figure.
    """
    steps = range(0, len(real), every)
    figure = Figure(figsize=(1.5 * len(steps), 3.4), layout="constrained", dpi=130)
    for number, (name, frames) in enumerate((("recorded", real), ("predicted", shown))):
        for place, step in enumerate(steps):
            axes = figure.add_subplot(2, len(steps), number * len(steps) + place + 1)
            axes.imshow(frames[step].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if number == 0:
                axes.set_title("last seen" if step == 0 else f"{step} ahead", fontsize=10)
            if place == 0:
                axes.set_ylabel(name, fontsize=11)
    return figure


def main() -> None:
    """Record, train, measure, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--agent", choices=["dreamerv3", "storm", "twister"], default="twister")
    parser.add_argument("--game", default="breakout")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes of training")
    parser.add_argument("--every", type=int, default=50, help="updates between measurements")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args, settings = parser.parse_known_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    spec, replay = record(args.game, args.frames, args.seed)
    agent = build(args.agent, spec, [f"seed={args.seed}", *settings])
    length, rng = agent.sequence_length, np.random.default_rng(args.seed)
    recorded = int(replay.write_pos[0])
    held_out = np.arange(recorded) % PERIOD >= PERIOD - HELD_OUT
    train_at, test_at = beginnings(~held_out, length), beginnings(held_out, CONTEXT + max(STEPS))
    test_at = replay.still_valid(test_at, CONTEXT + max(STEPS))[::3]  # within one episode each
    test = replay.gather(test_at, CONTEXT + max(STEPS))
    (frames,) = (v[0, :recorded] for name, v in replay.arrays.items() if name[:4] == "obs/")
    contrast = Contrast(frames[~held_out])
    rows: list[dict[str, float]] = []
    limit, began, spent, updates = 60.0 * args.minutes, time.process_time(), 0.0, 0
    with (args.out / "errors.jsonl").open("w", encoding="utf-8") as file:
        while not rows or spent < limit:
            batch = replay.gather(rng.choice(train_at, agent.batch_size), length)
            loss = train_once(agent, contrast.apply(batch))
            updates, spent = updates + 1, time.process_time() - began
            if updates % args.every == 0 or spent >= limit:
                images = predict(agent, test, contrast)
                expected = expect(agent, test, contrast)
                row = errors(*images, expected, contrast.mean / 255.0)
                row |= {"updates": updates, "loss": loss, "cpu_seconds": spent}
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
    draw(rows, *predict(agent, test, contrast), args.out)
    print(json.dumps({"subsequences": len(test.reward), **rows[-1]}))


if __name__ == "__main__":
    main()
