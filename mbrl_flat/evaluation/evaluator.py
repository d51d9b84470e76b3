"""What a run measures on a schedule: whole episodes of the current agent, and its probes."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from mbrl_flat.data.episode import Episode
from mbrl_flat.diagnostics.value_error import planner_metrics, value_metrics
from mbrl_flat.evaluation.episodes import FrameSink, evaluate, summarize
from mbrl_flat.evaluation.reference_scores import ScoreScale
from mbrl_flat.interfaces import Agent, Inspectable, Mode
from mbrl_flat.logging.console import progress_bar
from mbrl_flat.logging.video import VideoWriter
from mbrl_flat.specs import EnvSpec


@dataclass(eq=False)
class EpisodeEvaluator:
    """Returns of the planner and of the policy prior, and how well each one's value predicted them.

    Args:
        agent: Who is judged.
        envs: Evaluation environments, not those of the training.
        spec: Their shapes.
        episodes: Episodes of each kind.
        seed: With the step it determines every episode.
        device: Where the agent draws its noise.
        baseline: Judged once, on the first occasion; its mean return is in every row as
            ``eval/random_return_mean``.
        videos: Folder for a video of the first episode of each evaluation.
        scale: Where 0 and 1 of ``eval/normalised_score`` lie, unless the spec says it.
        discount: Of the task; by default the agent's.
        progress: Show a bar of each round of episodes, on a terminal.
    """

    agent: Agent
    envs: VectorEnv[Any, Any, Any]
    spec: EnvSpec
    _: KW_ONLY
    episodes: int
    seed: int
    device: torch.device
    baseline: Agent | None = None
    videos: Path | None = None
    scale: ScoreScale | None = None
    discount: float | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        self.score_range = self.spec.score_range
        if self.scale is not None and self.score_range is None:
            self.score_range = (self.scale.random, self.scale.reference)
        self.random_return: float | None = None

    def __call__(self, step: int) -> Mapping[str, float]:
        """Play and summarize."""
        seed = int(np.random.SeedSequence([self.seed, 3, step]).generate_state(1)[0])
        file = None if self.videos is None else self.videos / f"step_{step:09d}.mp4"
        with nullcontext() if file is None else VideoWriter(file) as sink:
            planned = self._play(self.agent, seed, "eval", sink)
        row = summarize(planned, self.score_range)
        if isinstance(self.agent, Inspectable):
            followed = self._play(self.agent, seed, "policy")
            returns = [episode.undiscounted_return for episode in followed]
            row["eval/policy_return_mean"] = float(np.mean(returns))
            discount = self.agent.discount if self.discount is None else self.discount
            row |= value_metrics(followed, discount)
            row |= planner_metrics(planned, discount)
        if self.baseline is not None:
            if self.random_return is None:
                episodes = self._play(self.baseline, seed, "eval")
                self.random_return = summarize(episodes)["eval/return_mean"]
            row["eval/random_return_mean"] = self.random_return
        return row

    def _play(
        self, agent: Agent, seed: int, mode: Mode, sink: FrameSink | None = None
    ) -> list[Episode]:
        what = "policy" if mode == "policy" else "agent"
        with progress_bar(self.spec.episode_length, what, wanted=self.progress) as bar:
            return evaluate(
                agent,
                self.envs,
                self.spec,
                episodes=self.episodes,
                seed=seed,
                mode=mode,
                device=self.device,
                frame_sink=sink,
                on_step=bar.update,
            )

    def close(self) -> None:
        """Free the environments."""
        self.envs.close()

    def state_dict(self) -> dict[str, Any]:
        """The baseline's return, once it is known."""
        return {"random_return": self.random_return}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.random_return = state["random_return"]
