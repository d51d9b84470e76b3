r"""The world model of TWISTER: a relative-position transformer that also predicts contrastively.

``targets`` draws everything random once: Gumbel noise of three kinds of samples, and the augmented
views. ``loss`` is then a function of the weights, and of torch's global stream through dropout
alone, which the optimizer's driver holds fixed.

References:
    Burchi & Timofte, "Learning Transformer-based World Models with Contrastive Predictive
    Coding", ICLR 2025, arXiv:2503.04416, Section 3.

Deviations from the paper:
    A subsequence has one image more than published, which is context: 65, of which 64 enter the
    loss. Attention has no biases but the two of its relative positions, and these start at zero.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mbrl_flat.agents.imagination import ModelState
from mbrl_flat.agents.token_style import Style
from mbrl_flat.agents.token_world_model import Observed, TokenWorldModel
from mbrl_flat.agents.twister.config import TWISTERConfig
from mbrl_flat.agents.twister.contrastive import ContrastivePredictor
from mbrl_flat.agents.twister.networks import head, initialise
from mbrl_flat.agents.twister.views import random_boxes, resized_crops, torchvision_boxes
from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import Targets
from mbrl_flat.models.categorical import straight_through
from mbrl_flat.models.kv_cache import KVCache, valid_windows, windows_of
from mbrl_flat.models.perceptron import Perceptron
from mbrl_flat.specs import EnvSpec


class WorldModel(TokenWorldModel):
    """Networks and their joint loss.

    Args:
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``TWISTERConfig``.
    """

    config: TWISTERConfig

    def __init__(self, spec: EnvSpec, config: TWISTERConfig) -> None:
        style = Style(
            agent="twister",
            centre=0.5,
            norm="layer",
            activation=nn.SiLU,
            eps=1e-3,
            head=lambda n_in, n_out: head(n_in, n_out, config),
            heads_see_latent=True,
        )
        super().__init__(spec, config, style)
        self.contrastive = ContrastivePredictor(
            self.feature_size,
            self.shape.size,
            spec.action.size,
            hidden=config.hidden,
            steps=config.contrastive_steps,
            decay=config.contrastive_decay,
        )
        initialise(self, zero_last=[cast(Perceptron, self.reward)])
        transformer = config.transformer
        self.slots, heads = transformer.left_context or 0, transformer.num_heads
        head_size = transformer.size // heads
        self.cache_shape = (transformer.num_layers, heads, self.slots, head_size)
        one = self.initial_state(1)
        self.use_packing({name: tuple(value.shape[1:]) for name, value in one.items()})

    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules that the loss trains, by the names that users select."""
        extra = {"contrastive": self.contrastive} if self.config.contrastive_coef > 0.0 else {}
        return super().trained_modules() | extra

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Draw all noise and the augmented views, and locate the rewards between the bins.

        Args:
            batch: Subsequences of T transitions.

        Returns:
            ``noise`` ``[B, T + 1, S, C]``; ``r_lower`` and ``r_share`` ``[B, T]``; and, with a
            contrastive loss, ``prior_noise`` and ``view_noise`` ``[B, T, S, C]`` and ``view``
            ``[B T, C, H, W]``.
        """
        rows, length = batch.reward.shape
        noise = self._noise(rows, length + 1, like=batch.reward)
        r_lower, r_share = self.two_hot.position(batch.reward)
        targets = Targets(noise=noise, r_lower=r_lower, r_share=r_share)
        if self.config.contrastive_coef > 0.0:
            how = {"min_area": self.config.min_crop_area, "device": noise.device}
            if self.config.crop == "torchvision":
                boxes = torchvision_boxes(rows * length, size=self.image.size, **how)
            else:
                boxes = random_boxes(rows * length, **how)
            targets["view"] = resized_crops(self.reconstructed_images(batch), boxes)
            for name in ("prior_noise", "view_noise"):
                targets[name] = self._noise(rows, length, like=noise)
        return targets

    def free_nats(self, kl: Tensor) -> Tensor:
        """Bound the term of every step: ``[B, T]`` to a scalar."""
        return kl.clamp(min=self.config.free_nats).mean()

    def states(self, seen: Observed, targets: Targets) -> ModelState:
        """States of all steps; windows of keys and values share memory."""
        del targets

        def windows(entries: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(windows_of(entry.detach(), self.slots) for entry in entries)

        valid = valid_windows(seen.begins, self.slots)
        cache = KVCache(windows(seen.cache.keys), windows(seen.cache.values), valid)
        return {"latent": seen.latent.detach(), "hidden": seen.hidden.detach(), **cache.to_state()}

    def extra_losses(
        self, batch: Batch, targets: Targets, seen: Observed, prior: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        """The contrastive loss of priors ``[B, T, S, C]`` and augmented views, if it is wanted."""
        if self.config.contrastive_coef == 0.0:
            return {}
        expected = straight_through(prior, targets["prior_noise"]).flatten(-2)
        view = self.encoder(targets["view"]).unflatten(0, prior.shape[:2])
        view_latent = straight_through(view, targets["view_noise"]).flatten(-2)
        episode = seen.begins[:, 1:].long().cumsum(1)
        features = torch.cat([expected, seen.hidden[:, 1:]], -1)
        loss = self.contrastive(features, view_latent, batch.action[:, 1:], episode)[0]
        return {"contrastive": (self.config.contrastive_coef, loss)}

    def initial_state(self, num: int) -> ModelState:
        """States ``[num, ...]`` before anything was observed."""
        first = self.dynamics.first_output
        return {
            "latent": first.new_zeros(num, self.shape.size),
            "hidden": first.new_zeros(num, self.config.transformer.size),
            **KVCache.empty(num, self.cache_shape, first.device).to_state(),
        }

    def append_observed(
        self, state: ModelState, latent: Tensor, action: Tensor, is_first: Tensor
    ) -> tuple[Tensor, ModelState]:
        """Process one token more; see ``TokenWorldModel``."""
        cache = KVCache.from_state(state).keep(~is_first)
        hidden, cache = self.dynamics.step(latent, action, cache)
        return hidden, cache.to_state()

    def append_imagined(self, state: ModelState, action: Tensor) -> tuple[Tensor, ModelState]:
        """Process one token more; see ``TokenWorldModel``."""
        hidden, cache = self.dynamics.step(state["latent"], action, KVCache.from_state(state))
        return hidden, cache.to_state()

    def begin_rollout(self, state: ModelState, horizon: int) -> ModelState:
        """Copy the cache to where there is room for ``horizon`` steps."""
        return {**state, **KVCache.from_state(state).with_room(horizon).to_state()}
