r"""What the world models of STORM and TWISTER share: categorical latents and a transformer.

    z_t ~ q(z_t | o_t),  h_t = f(z_{<t}, a_{<t}),  z_t ~ p(z_t | h_t)

Each agent adds what a state remembers, what the heads see, and terms of its own.

References:
    Zhang et al., "STORM", arXiv:2310.09615, Section 3; Burchi & Timofte, "TWISTER",
    arXiv:2503.04416, Section 3.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from mbrl_flat.agents.head_losses import head_logits, head_losses
from mbrl_flat.agents.image_latent import ImageSpec, LatentEncoder, LatentShape
from mbrl_flat.agents.imagination import Heads, ModelOutput, ModelState
from mbrl_flat.agents.packing import Packing
from mbrl_flat.agents.token_config import TokenModelConfig
from mbrl_flat.agents.token_dynamics import TokenDynamics
from mbrl_flat.agents.token_style import Style
from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import Metrics, Observation, Targets
from mbrl_flat.models.categorical import balanced_kl, draw_one_hot, gumbel_noise, straight_through
from mbrl_flat.models.kv_cache import KVCache
from mbrl_flat.models.strided_conv import StridedDecoder, StridedEncoder
from mbrl_flat.models.transformer import LearnedPositions
from mbrl_flat.optim.snapshots import frozen_statistics
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.specs import EnvSpec


class Observed(NamedTuple):
    """B subsequences of T transitions as the model sees them."""

    posterior: Tensor
    """Log probabilities ``[B, T + 1, S, C]``."""
    latent: Tensor
    """Samples ``[B, T + 1, S C]``."""
    before: Tensor
    """Latents of the step before ``[B, T + 1, S C]``."""
    moves: Tensor
    """Actions of the step before ``[B, T + 1, A]``."""
    begins: Tensor
    """Where episodes, and subsequences, begin ``[B, T + 1]``."""
    hidden: Tensor
    """Outputs ``[B, T + 1, D]``."""
    cache: KVCache
    """Keys and values of all steps."""


class TokenWorldModel(nn.Module, ABC):
    """Networks, and everything that does not depend on what a state remembers.

    Args:
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``TokenModelConfig``.
        style: How the networks are built.
    """

    feature_size: int
    """Features of a state that actor and critic see."""
    pack: Callable[[ModelState], Tensor]
    """A state as one tensor; set by ``use_packing``."""
    unpack: Callable[[Tensor], ModelState]
    """The state of such a tensor."""

    def __init__(self, spec: EnvSpec, config: TokenModelConfig, style: Style) -> None:
        super().__init__()
        self.config, self.style = config, style
        self.image = ImageSpec.of(spec, where=f"agent={style.agent}")
        self.shape = LatentShape(config.latent_groups, config.latent_classes)
        self.two_hot = config.bins
        width, latent, image = config.transformer.size, self.shape.size, self.image
        self.feature_size = latent + width
        self.action_size = spec.action.size
        form: dict[str, Any] = {
            "stages": image.stages,
            "width": config.conv_width,
            "norm": style.norm,
            "activation": style.activation,
        }
        images = StridedEncoder(image.channels, image.size, **form)
        self.encoder = LatentEncoder(images, self.shape, mix=config.mix)
        positions = style.learned_positions
        self.dynamics = TokenDynamics(
            self.shape,
            spec.action.size,
            config.transformer,
            activation=style.activation,
            eps=style.eps,
            mix=config.mix,
            positions=LearnedPositions(width, positions, eps=config.transformer.eps)
            if positions
            else None,
        )
        self.decoder = StridedDecoder(latent, image.channels, image.size, **form)
        seen = self.feature_size if style.heads_see_latent else width
        self.reward = style.head(seen, config.num_bins)
        self.continues = style.head(seen, 1)

    def use_packing(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Set how states become vectors, from the shapes of the entries of one row."""
        packing = Packing(shapes, frozenset({"valid"}))
        self.pack, self.unpack = packing.pack, packing.unpack

    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules that the loss trains, by the names that users select."""
        return {
            "encoder": self.encoder,
            "dynamics": self.dynamics,
            "reward": self.reward,
            "continue": self.continues,
            "decoder": self.decoder,
        }

    @abstractmethod
    def targets(self, batch: Batch) -> Targets:
        """Everything random of a loss, drawn once; see ``ImaginationModel``."""

    @abstractmethod
    def free_nats(self, kl: Tensor) -> Tensor:
        """One KL term ``[B, T]`` as a scalar that is at least ``free_nats``."""

    @abstractmethod
    def states(self, seen: Observed, targets: Targets) -> ModelState:
        """States of all steps ``[B, T + 1, ...]``, detached."""

    @abstractmethod
    def append_observed(
        self, state: ModelState, latent: Tensor, action: Tensor, is_first: Tensor
    ) -> tuple[Tensor, ModelState]:
        """Outputs ``[N, D]`` of one token more, and what the state remembers since ``is_first``."""

    @abstractmethod
    def append_imagined(self, state: ModelState, action: Tensor) -> tuple[Tensor, ModelState]:
        """The same for the state's own latents and actions ``[N, A]``, within an episode."""

    def extra_losses(
        self, batch: Batch, targets: Targets, seen: Observed, prior: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        """Weights and values, scalars, of an agent's own terms; ``prior`` is ``[B, T, S, C]``."""
        del batch, targets, seen, prior
        return {}

    def _noise(self, *lead: int, like: Tensor, generator: Generator | None = None) -> Tensor:
        return gumbel_noise((*lead, *self.shape), device=like.device, generator=generator)

    def observe_all(self, batch: Batch, noise: Tensor) -> Observed:
        """Encode all images at once, sample their latents, and process all tokens.

        Args:
            batch: Subsequences of T transitions.
            noise: Gumbel draws ``[B, T + 1, S, C]``.

        Returns:
            All of it, with gradient.
        """
        rows, steps = noise.shape[:2]
        images = self.image.as_float(batch.obs, centre=self.style.centre)
        posterior = self.encoder(images).unflatten(0, (rows, steps))
        latent = straight_through(posterior, noise).flatten(-2)
        is_first = batch.is_first
        if is_first is None:
            is_first = torch.zeros(rows, steps, dtype=torch.bool, device=noise.device)
        before, moves, begins = self.dynamics.previous(latent, batch.action, is_first)
        hidden, cache = self.dynamics.sequence(before, moves, self.dynamics.mask(begins))
        return Observed(posterior, latent, before, moves, begins, hidden, cache)

    def _head_inputs(self, seen: Observed) -> Tensor:
        hidden = seen.hidden[:, 1:]
        if self.style.heads_see_latent:
            return torch.cat([seen.latent[:, 1:], hidden], -1)
        return hidden

    def reconstructed_images(self, batch: Batch) -> Tensor:
        """All images but the first of each subsequence, as floats ``[B T, C, H, W]``."""
        images = {self.image.name: batch.obs[self.image.name][:, 1:]}
        return self.image.as_float(images, centre=self.style.centre)

    def _image_error(self, batch: Batch, latent: Tensor) -> Tensor:
        """Squared error of ``[B, T, S C]``, summed over an image and averaged over images."""
        decoded = self.decoder(latent.flatten(0, 1)).float()
        return (decoded - self.reconstructed_images(batch)).square().sum((1, 2, 3)).mean()

    def loss(self, batch: Batch, targets: Targets) -> ModelOutput:
        r"""Compute the world-model loss, a mean over batch and time.

        .. math::
            |o - \hat o|^2 + CE(r) + BCE(c)
            + 0.5 \max(1, KL(sg(q) \| p)) + 0.1 \max(1, KL(q \| sg(p))) + \ldots

        ``free_nats`` says where the mean of a KL term is taken, ``extra_losses`` what follows.

        Args:
            batch: Subsequences of T transitions; the first image of each is context.
            targets: What ``targets`` returned for this batch.

        Returns:
            Loss, its parts and the posterior states.
        """
        config = self.config
        seen = self.observe_all(batch, targets["noise"])
        inputs = self._head_inputs(seen)
        prior = self.dynamics.prior(seen.hidden[:, 1:])
        kl = balanced_kl(seen.posterior[:, 1:], prior)
        heads = self.head_losses(head_logits(inputs, self.reward, self.continues), batch, targets)
        parts = {
            "image": self._image_error(batch, seen.latent[:, 1:]),
            **heads,
            "dynamics": self.free_nats(kl.dynamics),
            "representation": self.free_nats(kl.representation),
        }
        loss = (
            config.image_coef * parts["image"]
            + parts["reward"]
            + parts["continue"]
            + config.dynamics_coef * parts["dynamics"]
            + config.representation_coef * parts["representation"]
        )
        for name, (coef, part) in self.extra_losses(batch, targets, seen, prior).items():
            parts[name] = part
            loss = loss + coef * part
        metrics: Metrics = {f"train/{name}_loss": part.detach() for name, part in parts.items()}
        metrics["train/kl"] = kl.dynamics.detach().mean()
        metrics["train/total_loss"] = loss.detach()
        return ModelOutput(loss, metrics, self.states(seen, targets))

    def head_logits(self, batch: Batch, targets: Targets) -> Heads:
        """Logits of reward ``[B, T, bins]`` and continuation ``[B, T]`` as ``loss`` sees them."""
        inputs = self._head_inputs(self.observe_all(batch, targets["noise"]))
        return head_logits(inputs, self.reward, self.continues)

    def head_losses(self, logits: Heads, batch: Batch, targets: Targets) -> Heads:
        """What ``loss`` makes of such logits."""
        return head_losses(logits, self.two_hot, 1.0 - batch.terminated, targets)

    @torch.no_grad()
    def observe_batch(self, batch: Batch, targets: Targets) -> ModelState:
        """Posterior states ``[B, T + 1, ...]``: the same tensors as ``loss`` gives."""
        with restored_rng(), frozen_statistics():
            return self.states(self.observe_all(batch, targets["noise"]), targets)

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
        """Take in observations ``[N, ...]``; see ``ImaginationModel.observe``."""
        begins = is_first[:, None]
        before = torch.where(begins, self.dynamics.first_latent(), state["latent"])
        moves = action.masked_fill(begins, 0.0)
        hidden, memory = self.append_observed(state, before, moves, is_first)
        latent = self._posterior(obs, generator)
        shown = self.shown(latent, hidden, generator)
        return {"latent": latent, self.style.act_on: shown, "hidden": hidden, **memory}

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
        hidden, memory = self.append_imagined(state, action)
        latent = self._prior(hidden, most_likely=most_likely, generator=generator)
        return {"latent": latent, self.style.act_on: latent, "hidden": hidden, **memory}

    def shown(self, latent: Tensor, hidden: Tensor, generator: Generator | None) -> Tensor:
        """What the policy sees of an observed step beside the output ``[N, D]``: its latent."""
        del hidden, generator
        return latent

    def _posterior(self, obs: Observation, generator: Generator | None) -> Tensor:
        """Sampled latents ``[N, S C]`` of single observations."""
        posterior = self.encoder(self.image.as_float(obs, centre=self.style.centre))
        noise = self._noise(len(posterior), like=posterior, generator=generator)
        return straight_through(posterior, noise).flatten(-2)

    def _prior(self, hidden: Tensor, *, most_likely: bool, generator: Generator | None) -> Tensor:
        """Latents ``[N, S C]`` that outputs ``[N, D]`` predict, sampled or the most likely."""
        prior = self.dynamics.prior(hidden)
        if most_likely:
            return straight_through(prior, None).flatten(-2)
        return draw_one_hot(prior, generator=generator).flatten(-2)

    def features(self, state: ModelState) -> Tensor:
        """Latent and output ``[..., F]``, float32."""
        return torch.cat([state[self.style.act_on], state["hidden"].float()], -1)

    def _of_features(self, features: Tensor) -> Tensor:
        """What the heads see of features."""
        return features if self.style.heads_see_latent else features[..., self.shape.size :]

    def predict_reward(self, features: Tensor) -> Tensor:
        """Expected reward ``[...]`` of arriving in ``[..., F]``."""
        return self.two_hot.decode(self.reward(self._of_features(features)).float())

    def predict_continue(self, features: Tensor) -> Tensor:
        """One where the episode more likely continues, else zero ``[...]``."""
        return (self.continues(self._of_features(features))[..., 0] > 0.0).float()

    def decode(self, features: Tensor) -> Observation:
        """Expected images ``[..., C, H, W]`` in [0, 1]."""
        latent = features[..., : self.shape.size]
        images = self.decoder(latent.reshape(-1, latent.shape[-1])).float()
        images = images.add(self.style.centre).clamp(0.0, 1.0)
        return {self.image.name: images.unflatten(0, latent.shape[:-1])}
