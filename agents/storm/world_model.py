r"""The world model of STORM: a transformer with learned positions; heads see its output alone.

A state keeps the last few tokens, not their keys: with learned positions these depend on where the
window begins. ``begin_rollout`` computes the keys of all windows in one batch.

References:
    Zhang et al., "STORM: Efficient Stochastic Transformer based World Models for Reinforcement
    Learning", NeurIPS 2023, arXiv:2310.09615, Section 3.

Deviations from the paper:
    Nothing crosses an episode's start, where a learned token takes the place of what came before;
    the published context continued. The policy sees the current frame (``act_on=prediction`` is
    published). Rollouts begin at the states of the model's own batch, not at another one's.
    Remembered tokens keep the latents that were sampled when their frames were new.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn

from mbrl_flat.agents.imagination import ModelState
from mbrl_flat.agents.storm.config import STORMConfig
from mbrl_flat.agents.storm.tokens import Tokens
from mbrl_flat.agents.token_style import Style
from mbrl_flat.agents.token_world_model import Observed, TokenWorldModel
from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import Targets
from mbrl_flat.models.categorical import straight_through
from mbrl_flat.models.kv_cache import KVCache, valid_windows, windows_of
from mbrl_flat.models.perceptron import Perceptron
from mbrl_flat.specs import EnvSpec


def linear_default_(weight: Tensor) -> Tensor:
    """Fill ``[n_out, n_in]`` as ``nn.Linear`` does: uniform in ``+-1 / sqrt(fan_in)``."""
    return nn.init.kaiming_uniform_(weight, a=math.sqrt(5.0))


def head(in_features: int, hidden: Sequence[int], out_features: int) -> Perceptron:
    """Build a perceptron with LayerNorm and ReLU."""
    return Perceptron(
        in_features,
        hidden,
        out_features,
        norm=nn.LayerNorm,
        activation=nn.ReLU,
        bias=False,
        init=linear_default_,
        out_init=linear_default_,
    )


class WorldModel(TokenWorldModel):
    """Networks and their joint loss.

    Args:
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``STORMConfig``.
    """

    config: STORMConfig

    def __init__(self, spec: EnvSpec, config: STORMConfig) -> None:
        width, size = config.transformer.size, config.latent_groups * config.latent_classes
        style = Style(
            agent="storm",
            centre=0.0,
            norm=config.norm,
            # In place: normalisations do not keep their output.
            activation=partial(nn.ReLU, inplace=True),
            eps=1e-5,
            head=lambda n_in, n_out: head(n_in, [width, width], n_out),
            heads_see_latent=False,
            learned_positions=config.max_length,
            act_on="shown",
        )
        super().__init__(spec, config, style)
        window = config.context
        self.use_packing(
            {
                "latent": (size,),
                "shown": (size,),
                "hidden": (width,),
                "past_latent": (window, size),
                "past_action": (window, spec.action.size),
                "valid": (window,),
            }
        )

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Draw the noise of all samples, and locate the rewards between the bins.

        Args:
            batch: Subsequences of T transitions.

        Returns:
            ``noise`` and ``prior_noise`` ``[B, T + 1, S, C]``; ``r_lower`` and ``r_share``
            ``[B, T]``.
        """
        rows, length = batch.reward.shape
        noise, prior_noise = (self._noise(rows, length + 1, like=batch.reward) for _ in range(2))
        r_lower, r_share = self.two_hot.position(batch.reward)
        return Targets(noise=noise, prior_noise=prior_noise, r_lower=r_lower, r_share=r_share)

    def free_nats(self, kl: Tensor) -> Tensor:
        """Bound the mean over batch and time: ``[B, T]`` to a scalar."""
        return kl.mean().clamp(min=self.config.free_nats)

    def states(self, seen: Observed, targets: Targets) -> ModelState:
        """States of all steps; windows of tokens share memory."""
        latent, hidden, size = seen.latent.detach(), seen.hidden.detach(), self.config.context

        def windows(sequence: Tensor) -> Tensor:
            return windows_of(sequence.detach()[:, None], size)[:, :, 0]

        valid = valid_windows(seen.begins, size)
        tokens = Tokens(windows(seen.before), windows(seen.moves), valid)
        shown = self._shown(latent, hidden, targets["prior_noise"])
        return {"latent": latent, "shown": shown, "hidden": hidden, **tokens.to_state()}

    def _shown(self, latent: Tensor, hidden: Tensor, prior_noise: Tensor) -> Tensor:
        if self.config.act_on == "frame":
            return latent
        return straight_through(self.dynamics.prior(hidden).detach(), prior_noise).flatten(-2)

    def shown(self, latent: Tensor, hidden: Tensor, generator: Generator | None) -> Tensor:
        """The latent or, with ``act_on=prediction``, what the model had predicted of it."""
        noise = self._noise(len(latent), like=latent, generator=generator)
        return self._shown(latent, hidden, noise)

    def initial_state(self, num: int) -> ModelState:
        """States ``[num, ...]`` before anything was observed; they remember ``act_context``."""
        size, window = self.shape.size, self.config.act_context
        zeros = self.dynamics.first_output.new_zeros
        tokens = Tokens(
            zeros(num, window, size),
            zeros(num, window, self.action_size),
            zeros(num, window, dtype=torch.bool),
        )
        latent = zeros(num, size)
        hidden = zeros(num, self.config.transformer.size)
        return {"latent": latent, "shown": latent, "hidden": hidden, **tokens.to_state()}

    def _process(self, tokens: Tokens) -> tuple[Tensor, KVCache]:
        """Outputs ``[N, D]`` of the last tokens, and keys and values of all."""
        hidden, cache = self.dynamics.sequence(tokens.latent, tokens.action, tokens.mask())
        return hidden[:, -1], cache._replace(valid=tokens.valid)

    def append_observed(
        self, state: ModelState, latent: Tensor, action: Tensor, is_first: Tensor
    ) -> tuple[Tensor, ModelState]:
        """Slide the windows by one token; see ``TokenWorldModel``."""
        old = Tokens.of(state)
        tokens = old._replace(valid=old.valid & ~is_first[:, None]).append(latent, action)
        if self.config.act_align == "left":
            moved, last = tokens.left_aligned()
            hidden, _ = self.dynamics.sequence(moved.latent, moved.action, moved.mask())
            hidden = hidden[torch.arange(len(last), device=last.device), last]
        else:
            hidden, _ = self._process(tokens)
        return hidden, tokens.to_state()

    @torch.no_grad()
    def begin_rollout(self, state: ModelState, horizon: int) -> ModelState:
        """Process all contexts in one batch and make room for ``horizon`` steps."""
        hidden, cache = self._process(Tokens.of(state))
        shown, memory = state["shown"], cache.with_room(horizon).to_state()
        return {"latent": shown, "shown": shown, "hidden": hidden, **memory}

    def append_imagined(self, state: ModelState, action: Tensor) -> tuple[Tensor, ModelState]:
        """Process one token more; without ``begin_rollout`` the window slides."""
        if "past_latent" in state:
            tokens = Tokens.of(state).append(state["latent"], action)
            return self._process(tokens)[0], tokens.to_state()
        hidden, cache = self.dynamics.step(state["latent"], action, KVCache.from_state(state))
        return hidden, cache.to_state()
