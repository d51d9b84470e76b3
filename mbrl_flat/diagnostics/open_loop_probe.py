"""Open-loop predictions of observations: their errors, and videos of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.inspection import episode_batch, measured_weights
from mbrl_flat.diagnostics.probe import NothingToMeasure, SeededProbe
from mbrl_flat.diagnostics.rollout_error import open_loop
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Decodes, Inspectable
from mbrl_flat.logging.video import VideoWriter
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.settings import setting


@dataclass(kw_only=True, eq=False, repr=False)
class OpenLoopProbe(SeededProbe):
    """Observation errors of open-loop rollouts, and a video of some of them.

    The model sees ``context`` transitions, then predicts ``horizon`` steps from the recorded
    actions alone; its latents are decoded. Names begin with ``probe/rollout/``:
    ``observation_error_<k>`` is the mean squared error of all entries of all observations after
    k steps as a share of their variance, ``observation_error_0`` what decoding alone gets wrong.
    Of agents without a decoder there is nothing to measure.

    Each subsequence is a column of three images in the video: what happened, what was imagined,
    and half their difference on grey. During the context the second is the reconstruction.

    Attributes:
        horizon: Imagined steps K.
        context: Transitions that are seen first.
        batch_size: Subsequences that errors are averaged over.
        heldout: Take held-out episodes; otherwise those that the agent trains on.
        videos: Subsequences in the video; 0 means no video.
        folder: Where videos go.
        seed: Determines the subsequences.
        films: Old name of ``videos``.

    Raises:
        UserError: If a number is out of range.

    References:
        Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104: open-loop
        predictions from five context frames (Figure 4).
    """

    horizon: int = setting(45, "[1, inf)")
    context: int = setting(5, "[0, inf)")
    batch_size: int = setting(16, "[1, inf)")
    heldout: bool = True
    videos: int = setting(6, "[0, inf)")
    folder: str | Path = "videos"
    films: int | None = setting(None, "[0, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.videos = self.videos if self.films is None else self.films
        if self.videos > self.batch_size:
            raise UserError(
                f"videos must be at most batch_size={self.batch_size}, got {self.videos}."
            )
        self.count = 0

    def __call__(self, agent: Inspectable, replay: Replay) -> dict[str, float]:
        """Measure, and leave a video.

        Args:
            agent: Whose model; it stays as it is.
            replay: Where the subsequences come from.

        Returns:
            The row.

        Raises:
            NothingToMeasure: Without a decoder, or if no stored episode is long enough.
        """
        if not isinstance(agent, Decodes):
            raise NothingToMeasure(
                "the agent has no decoder of observations; probe=rollout_error measures open-loop "
                "predictions in its latents."
            )
        length = self.context + self.horizon
        batch = episode_batch(replay, self.batch_size, length, rng=self.rng, heldout=self.heldout)
        with measured_weights(agent), restored_rng(), torch.no_grad():
            torch.manual_seed(int(self.rng.integers(2**31)))
            seen, imagined = self._decoded(agent, batch)
        row: dict[str, float] = {}
        actual = {name: _unit(value[:, self.context :]) for name, value in batch.obs.items()}
        for step in range(self.horizon + 1):
            error = _relative_error(imagined, actual, step)
            if error is not None:
                row[f"probe/rollout/observation_error_{step}"] = error
        images = [name for name, value in batch.obs.items() if value.dtype == torch.uint8]
        if self.videos > 0 and images:
            name = images[0]
            whole = torch.cat([seen[name][:, : self.context], imagined[name]], 1)
            self._write_video(batch.obs[name], whole)
        return row

    def _decoded(
        self, agent: Any, batch: Batch
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Reconstructions ``[B, T + 1, ...]``, and imagined observations ``[B, K + 1, ...]``."""
        latent = agent.posterior(batch)
        action = batch.to(latent.device).action
        start = latent[:, self.context]
        rolled, _, _ = open_loop(agent, start, action[:, self.context :])
        seen = agent.decode(latent)
        imagined = agent.decode(torch.cat([start[:, None], rolled], 1))
        return (
            {name: value.float().cpu() for name, value in seen.items()},
            {name: value.float().cpu() for name, value in imagined.items()},
        )

    def _write_video(self, actual: Tensor, imagined: Tensor) -> None:
        """Write ``[B, T, C, H, W]`` of each kind as one video."""
        true = _unit(actual[: self.videos])
        model = imagined[: self.videos].clamp(0.0, 1.0)
        difference = (model - true + 1.0) / 2.0
        stacked = torch.cat([true, model, difference], -2)
        frames = (255.0 * torch.cat(list(stacked), -1)).round().to(torch.uint8).permute(0, 2, 3, 1)
        self.count += 1
        with VideoWriter(Path(self.folder) / f"open_loop_{self.count:04d}.mp4", fps=10) as video:
            for frame in frames.numpy():
                video(frame if frame.shape[-1] == 3 else np.repeat(frame[..., :1], 3, -1))

    def state_dict(self) -> dict[str, Any]:
        """The stream that the subsequences are drawn from, and how many videos there are."""
        return {**super().state_dict(), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        super().load_state_dict(state)
        self.count = state["count"]


def _unit(value: Tensor) -> Tensor:
    """Images in [0, 1], as decoders give them; everything else as it is."""
    return value.float() / 255.0 if value.dtype == torch.uint8 else value


def _relative_error(
    imagined: Mapping[str, Tensor], actual: Mapping[str, Tensor], step: int
) -> float | None:
    """Mean over entries of squared error over variance; ``None`` if nothing varies."""
    shares: list[float] = []
    for name, predicted in imagined.items():
        true = actual[name].double()
        variance = float((true - true.flatten(0, 1).mean(0)).square().mean())
        if variance > 0.0:
            error = (predicted[:, step].double() - true[:, step]).square().mean()
            shares.append(float(error) / variance)
    return float(np.mean(shares)) if shares else None
