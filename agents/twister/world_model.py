r"""The world model of TWISTER: a relative-position transformer that also predicts contrastively.

    z_t ~ q(z_t | o_t),  h_t = f(z_{<t}, a_{<t}),  z_t ~ p(z_t | h_t),  r_t, c_t from [z_t, h_t]

``targets`` draws everything random once: Gumbel noise of three kinds of samples, and the augmented
views. ``loss`` is then a function of the weights, and of torch's global stream through dropout
alone, which the optimizer's driver holds fixed.

References:
    Burchi & Timofte, "Learning Transformer-based World Models with Contrastive Predictive
    Coding", ICLR 2025, arXiv:2503.04416, Section 3.

Deviations from the paper:
    A subsequence has one image more than published, which is context: 65, of which 64 enter the
    loss.
    Attention has no biases but the two of its relative positions, and these start at zero.
"""

import torch
from torch import Generator, Tensor, nn

from mbrl_flat.agents.head_losses import head_logits, head_losses
from mbrl_flat.agents.image_latent import ImageSpec, LatentEncoder, LatentShape
from mbrl_flat.agents.imagination import Heads, ModelOutput, ModelState
from mbrl_flat.agents.observed import (
    Observed,
    decoded,
    image_error,
    observe_sequences,
    reconstructed_images,
)
from mbrl_flat.agents.packing import Packing
from mbrl_flat.agents.token_dynamics import TokenDynamics
from mbrl_flat.agents.twister.config import TWISTERConfig
from mbrl_flat.agents.twister.contrastive import ContrastivePredictor
from mbrl_flat.agents.twister.networks import convolutions, deconvolutions, head, initialise
from mbrl_flat.agents.twister.views import random_boxes, resized_crops
from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import Metrics, Observation, Targets
from mbrl_flat.models.categorical import balanced_kl, draw_one_hot, gumbel_noise, straight_through
from mbrl_flat.models.functional import TwoHot
from mbrl_flat.models.kv_cache import KVCache, valid_windows, windows_of
from mbrl_flat.optim.closure_evaluator import frozen_statistics
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.specs import EnvSpec

_CENTRE = 0.5
"""Networks see pixels in [-0.5, 0.5]."""


class WorldModel(nn.Module):
    """Networks and their joint loss.

    Args:
        spec: The environment's shapes.
        config: Hyperparameters.
    """

    def __init__(self, spec: EnvSpec, config: TWISTERConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageSpec.of(spec, where="agent=twister")
        self.shape = LatentShape(config.latent_groups, config.latent_classes)
        self.two_hot = TwoHot(
            num_bins=config.num_bins, low=-config.bin_limit, high=config.bin_limit
        )
        width, latent = config.transformer.size, self.shape.size
        self.feature_size = latent + width
        self.action_size = spec.action.size
        self.encoder = LatentEncoder(convolutions(self.image, config), self.shape, mix=config.mix)
        self.dynamics = TokenDynamics(
            self.shape,
            spec.action.size,
            config.transformer,
            activation=nn.SiLU,
            eps=1e-3,
            mix=config.mix,
        )
        self.decoder = deconvolutions(latent, self.image, config)
        self.reward = head(self.feature_size, config.num_bins, config)
        self.continues = head(self.feature_size, 1, config)
        self.contrastive = ContrastivePredictor(
            self.feature_size,
            latent,
            spec.action.size,
            hidden=config.hidden,
            steps=config.contrastive_steps,
            decay=config.contrastive_decay,
        )
        initialise(self, zero_last=[self.reward])
        heads = config.transformer.num_heads
        self.slots = config.transformer.left_context or 0
        self.cache_shape = (config.transformer.num_layers, heads, self.slots, width // heads)
        one = self.initial_state(1)
        shapes = {name: tuple(value.shape[1:]) for name, value in one.items()}
        self._packing = Packing(shapes, frozenset({"valid"}))
        self.pack, self.unpack = self._packing.pack, self._packing.unpack

    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules that the loss trains, by the names that users select."""
        modules: dict[str, nn.Module] = {
            "encoder": self.encoder,
            "dynamics": self.dynamics,
            "reward": self.reward,
            "continue": self.continues,
            "decoder": self.decoder,
        }
        if self.config.contrastive_coef > 0.0:
            modules["contrastive"] = self.contrastive
        return modules

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
        device = batch.reward.device

        def noise(steps: int) -> Tensor:
            return gumbel_noise((rows, steps, *self.shape), device=device)

        r_lower, r_share = self.two_hot.position(batch.reward)
        targets = Targets(noise=noise(length + 1), r_lower=r_lower, r_share=r_share)
        if self.config.contrastive_coef > 0.0:
            images = reconstructed_images(batch, self.image, centre=_CENTRE)
            boxes = random_boxes(rows * length, min_area=self.config.min_crop_area, device=device)
            targets["view"] = resized_crops(images, boxes)
            targets["prior_noise"], targets["view_noise"] = noise(length), noise(length)
        return targets

    def _observe_all(self, batch: Batch, noise: Tensor) -> Observed:
        return observe_sequences(
            batch,
            noise,
            image=self.image,
            centre=_CENTRE,
            encoder=self.encoder,
            dynamics=self.dynamics,
        )

    def _states(self, seen: Observed) -> ModelState:
        """States of all steps; windows of keys and values share memory."""

        def windows(entries: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(windows_of(entry.detach(), self.slots) for entry in entries)

        cache = KVCache(
            windows(seen.cache.keys),
            windows(seen.cache.values),
            valid_windows(seen.begins, self.slots),
        )
        return {
            "latent": seen.latent.detach(),
            "hidden": seen.hidden.detach(),
            **cache.to_state(),
        }

    def loss(self, batch: Batch, targets: Targets) -> ModelOutput:
        r"""Compute the world-model loss, a mean over batch and time.

        .. math::
            |o - \hat o|^2 + CE(r) + BCE(c)
            + 0.5 \max(1, KL(sg(q) \| p)) + 0.1 \max(1, KL(q \| sg(p))) + L_{contrastive}

        Args:
            batch: Subsequences of T transitions; the first image of each is context.
            targets: What ``targets`` returned for this batch.

        Returns:
            Loss, its parts and the posterior states.
        """
        config = self.config
        seen = self._observe_all(batch, targets["noise"])
        features = seen.features
        prior = self.dynamics.prior(seen.hidden[:, 1:])
        kl = balanced_kl(seen.posterior[:, 1:], prior)
        heads = self.head_losses(head_logits(features, self.reward, self.continues), batch, targets)
        parts = {
            "image": image_error(
                self.decoder,
                seen.latent[:, 1:],
                reconstructed_images(batch, self.image, centre=_CENTRE),
            ),
            **heads,
            "dynamics": kl.dynamics.clamp(min=config.free_nats).mean(),
            "representation": kl.representation.clamp(min=config.free_nats).mean(),
        }
        loss = (
            config.image_coef * parts["image"]
            + parts["reward"]
            + parts["continue"]
            + config.dynamics_coef * parts["dynamics"]
            + config.representation_coef * parts["representation"]
        )
        if config.contrastive_coef > 0.0:
            parts["contrastive"] = self._contrastive_loss(batch, targets, seen, prior)
            loss = loss + config.contrastive_coef * parts["contrastive"]
        metrics: Metrics = {f"train/{name}_loss": part.detach() for name, part in parts.items()}
        metrics["train/kl"] = kl.dynamics.detach().mean()
        metrics["train/total_loss"] = loss.detach()
        return ModelOutput(loss, metrics, self._states(seen))

    def _contrastive_loss(
        self, batch: Batch, targets: Targets, seen: Observed, prior: Tensor
    ) -> Tensor:
        hidden = seen.hidden[:, 1:]
        expected = straight_through(prior, targets["prior_noise"]).flatten(-2)
        view = self.encoder(targets["view"]).unflatten(0, prior.shape[:2])
        view_latent = straight_through(view, targets["view_noise"]).flatten(-2)
        episode = seen.begins[:, 1:].long().cumsum(1)
        features = torch.cat([expected, hidden], -1)
        return self.contrastive(features, view_latent, batch.action[:, 1:], episode)[0]

    def head_logits(self, batch: Batch, targets: Targets) -> Heads:
        """Logits of reward ``[B, T, bins]`` and continuation ``[B, T]`` as ``loss`` sees them."""
        features = self._observe_all(batch, targets["noise"]).features
        return head_logits(features, self.reward, self.continues)

    def head_losses(self, logits: Heads, batch: Batch, targets: Targets) -> Heads:
        """What ``loss`` makes of such logits."""
        return head_losses(logits, self.two_hot, 1.0 - batch.terminated, targets)

    @torch.no_grad()
    def observe_batch(self, batch: Batch, targets: Targets) -> ModelState:
        """Posterior states ``[B, T + 1, ...]``: the same tensors as ``loss`` gives."""
        with restored_rng(), frozen_statistics():
            return self._states(self._observe_all(batch, targets["noise"]))

    def initial_state(self, num: int) -> ModelState:
        """States ``[num, ...]`` before anything was observed."""
        device = self.dynamics.first_output.device
        return {
            "latent": torch.zeros(num, self.shape.size, device=device),
            "hidden": torch.zeros(num, self.config.transformer.size, device=device),
            **KVCache.empty(num, self.cache_shape, device).to_state(),
        }

    @torch.no_grad()
    def observe(
        self,
        state: ModelState,
        action: Tensor,
        obs: Observation,
        is_first: Tensor,
        *,
        generator: Generator | None = None,
    ) -> ModelState:
        """Take in one observation; see ``ImaginationModel.observe``."""
        begins = is_first[:, None]
        before = torch.where(begins, self.dynamics.first_latent(), state["latent"])
        cache = KVCache.from_state(state).keep(~is_first)
        hidden, cache = self.dynamics.step(before, action.masked_fill(begins, 0.0), cache)
        posterior = self.encoder(self.image.as_float(obs, centre=_CENTRE))
        noise = gumbel_noise(tuple(posterior.shape), device=hidden.device, generator=generator)
        latent = straight_through(posterior, noise).flatten(-2)
        return {"latent": latent, "hidden": hidden, **cache.to_state()}

    def begin_rollout(self, state: ModelState, horizon: int) -> ModelState:
        """Copy the cache to where there is backup for ``horizon`` steps."""
        return {**state, **KVCache.from_state(state).with_room(horizon).to_state()}

    @torch.no_grad()
    def imagine(
        self,
        state: ModelState,
        action: Tensor,
        *,
        generator: Generator | None = None,
        most_likely: bool = False,
    ) -> ModelState:
        """Prior states ``[N, ...]`` after actions ``[N, A]``."""
        hidden, cache = self.dynamics.step(state["latent"], action, KVCache.from_state(state))
        prior = self.dynamics.prior(hidden)
        drawn = (
            straight_through(prior, None)
            if most_likely
            else draw_one_hot(prior, generator=generator)
        )
        latent = drawn.flatten(-2)
        return {"latent": latent, "hidden": hidden, **cache.to_state()}

    def features(self, state: ModelState) -> Tensor:
        """Latent and output ``[..., F]``, float32."""
        return torch.cat([state["latent"], state["hidden"].float()], -1)

    def predict_reward(self, features: Tensor) -> Tensor:
        """Expected reward ``[...]`` of arriving in ``[..., F]``."""
        return self.two_hot.decode(self.reward(features).float())

    def predict_continue(self, features: Tensor) -> Tensor:
        """One where the episode more likely continues, else zero ``[...]``."""
        return (self.continues(features)[..., 0] > 0.0).float()

    def decode(self, features: Tensor) -> Observation:
        """Expected images ``[..., C, H, W]`` in [0, 1]."""
        latent = features[..., : self.shape.size]
        return {self.image.name: decoded(self.decoder, latent, centre=_CENTRE)}
