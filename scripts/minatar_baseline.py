"""What a well-known model-free agent makes of the same few frames: DQN of stable-baselines3.

The suite does not depend on that package; it is fetched for this comparison alone. Games, sticky
actions, frames, observations (flattened for an MLP) and evaluation episodes are those of
``mbrl-flat-train env=minatar``. The folder it writes is one that ``mbrl-flat-compare`` reads.

    pip install --target sb3 --no-deps stable-baselines3==2.9.2
    PYTHONPATH=sb3 python scripts/minatar_baseline.py --game breakout --seed 1 --out runs/dqn_1
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import yaml

from mbrl_flat.envs.minatar import make
from mbrl_flat.errors import MissingExtraError
from mbrl_flat.evaluation.episodes import episode_seeds


class Flat(gym.ObservationWrapper[np.ndarray, Any, Any]):
    """The grid as one vector of zeros and ones.

    Args:
        env: A game with observations ``{"grid": [C, 10, 10]}``.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        shape = env.observation_space["grid"].shape  # pyright: ignore[reportIndexIssue]
        self.observation_space = gym.spaces.Box(0.0, 1.0, (int(np.prod(shape)),), np.float32)

    def observation(self, observation: Any) -> np.ndarray:
        """Flatten."""
        return observation["grid"].astype(np.float32).reshape(-1) / 255.0


def mean_return(model: Any, game: str, episodes: int, seed: int) -> tuple[float, float]:
    """Mean and deviation of the returns of greedy episodes."""
    env = Flat(make(game, seed=seed, size=10))
    returns = []
    for episode_seed in episode_seeds(seed, episodes):
        obs, _ = env.reset(seed=episode_seed)
        total, done = 0.0, False
        while not done:
            action, _ = model.predict(obs, deterministic=True)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    return float(np.mean(returns)), float(np.std(returns, ddof=1))


def main() -> None:
    """Train, and evaluate at even intervals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--game", default="breakout")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, default=1, help="for each step")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--eval-every", type=int, default=2000)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        from stable_baselines3 import DQN  # pyright: ignore[reportMissingImports]  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            "scripts/minatar_baseline.py needs stable-baselines3; put it beside the suite with: "
            "pip install --target sb3 --no-deps stable-baselines3, and set PYTHONPATH=sb3."
        ) from error
    torch.set_num_threads(1)
    args.out.mkdir(parents=True)
    names = {"agent": "dqn", "env": "minatar", "task": args.game, "optimizer": "adam"}
    config = {"names": names, "seed": args.seed, "steps": args.steps, "settings": str(vars(args))}
    (args.out / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    model = DQN(
        "MlpPolicy",
        Flat(make(args.game, seed=args.seed, size=10)),
        learning_rate=args.lr,
        buffer_size=100_000,
        learning_starts=1000,
        train_freq=1,
        gradient_steps=args.updates,
        target_update_interval=500,
        exploration_fraction=0.5,
        exploration_final_eps=0.05,
        gamma=0.98,
        policy_kwargs={"net_arch": [128, 128]},
        seed=args.seed,
        device="cpu",
    )
    with (args.out / "metrics.jsonl").open("w", encoding="utf-8") as file:

        def measure(step: int) -> None:
            mean, std = mean_return(model, args.game, args.episodes, args.seed)
            row = {"step": step, "frame": step, "eval/return_mean": mean, "eval/return_std": std}
            file.write(json.dumps(row) + "\n")
            print(row, flush=True)

        def after_step(*_: Any) -> bool:
            if model.num_timesteps % args.eval_every == 0:
                measure(model.num_timesteps)
            return True

        measure(0)
        model.learn(args.steps, callback=after_step)


if __name__ == "__main__":
    main()
