r"""The world model of STORM: categorical latents and a transformer with learned positions.

    z_t ~ q(z_t | o_t),  h_t = f(z_{<t}, a_{<t}),  z_t ~ p(z_t | h_t),  r_t, c_t from h_t

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
from mbrl_flat.agents.storm.config import STORMConfig
from mbrl_flat.agents.storm.networks import convolutions, deconvolutions, head
from mbrl_flat.agents.storm.tokens import Tokens
from mbrl_flat.agents.token_dynamics import TokenDynamics
from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import Metrics, Observation, Targets
from mbrl_flat.models.categorical import balanced_kl, draw_one_hot, gumbel_noise, straight_through
from mbrl_flat.models.functional import TwoHot
from mbrl_flat.models.kv_cache import KVCache, valid_windows, windows_of
from mbrl_flat.models.transformer import LearnedPositions
from mbrl_flat.optim.closure_evaluator import frozen_statistics
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.specs import EnvSpec


class WorldModel(nn.Module):
    """Networks and their joint loss.

    Args:
        spec: The environment's shapes.
        config: Hyperparameters.
    """

    def __init__(self, spec: EnvSpec, config: STORMConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageSpec.of(spec, where="agent=storm")
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
            activation=nn.ReLU,
            eps=1e-5,
            mix=config.mix,
            positions=LearnedPositions(width, config.max_length, eps=config.transformer.eps),
        )
        self.decoder = deconvolutions(latent, self.image, config)
        self.reward = head(width, [width, width], config.num_bins)
        self.continues = head(width, [width, width], 1)
        self._packing = Packing(
            {
                "latent": (latent,),
                "shown": (latent,),
                "hidden": (width,),
                "past_latent": (config.context, latent),
                "past_action": (config.context, spec.action.size),
                "valid": (config.context,),
            },
            frozenset({"valid"}),
        )
        self.pack, self.unpack = self._packing.pack, self._packing.unpack

    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules that the loss trains, by the names that users select."""
        return {
            "encoder": self.encoder,
            "dynamics": self.dynamics,
            "reward": self.reward,
            "continue": self.continues,
            "decoder": self.decoder,
        }

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Draw the noise of all samples, and locate the rewards between the bins.

        Args:
            batch: Subsequences of T transitions.

        Returns:
            ``noise`` and ``prior_noise`` ``[B, T + 1, S, C]``; ``r_lower`` and ``r_share``
            ``[B, T]``.
        """
        shape = (batch.reward.shape[0], batch.reward.shape[1] + 1, *self.shape)
        noise, prior_noise = (gumbel_noise(shape, device=batch.reward.device) for _ in range(2))
        r_lower, r_share = self.two_hot.position(batch.reward)
        return Targets(noise=noise, prior_noise=prior_noise, r_lower=r_lower, r_share=r_share)

    def _observe_all(self, batch: Batch, targets: Targets) -> Observed:
        return observe_sequences(
            batch,
            targets["noise"],
            image=self.image,
            centre=0.0,
            encoder=self.encoder,
            dynamics=self.dynamics,
        )

    def _states(self, seen: Observed, targets: Targets) -> ModelState:
        """States of all steps; windows of tokens share memory."""
        latent, hidden, size = seen.latent.detach(), seen.hidden.detach(), self.config.context

        def windows(sequence: Tensor) -> Tensor:
            return windows_of(sequence.detach()[:, None], size)[:, :, 0]

        valid = valid_windows(seen.begins, size)
        tokens = Tokens(windows(seen.before), windows(seen.moves), valid)
        shown = self._shown(latent, hidden, targets["prior_noise"])
        return {"latent": latent, "shown": shown, "hidden": hidden, **tokens.to_state()}

    def _shown(self, latent: Tensor, hidden: Tensor, prior_noise: Tensor) -> Tensor:
        """What the policy sees of the current step, ``[..., S C]``."""
        if self.config.act_on == "frame":
            return latent
        return straight_through(self.dynamics.prior(hidden).detach(), prior_noise).flatten(-2)

    def loss(self, batch: Batch, targets: Targets) -> ModelOutput:
        r"""Compute the world-model loss, where bars are means over batch and time.

        .. math::
            \overline{|o - \hat o|^2} + \overline{CE(r)} + \overline{BCE(c)}
            + 0.5 \max(1, \overline{KL(sg(q) \| p)}) + 0.1 \max(1, \overline{KL(q \| sg(p))})

        Args:
            batch: Subsequences of T transitions; the first image of each is context.
            targets: What ``targets`` returned for this batch.

        Returns:
            Loss, its parts and the posterior states.
        """
        config = self.config
        seen = self._observe_all(batch, targets)
        hidden = seen.hidden[:, 1:]
        kl = balanced_kl(seen.posterior[:, 1:], self.dynamics.prior(hidden))
        heads = self.head_losses(head_logits(hidden, self.reward, self.continues), batch, targets)
        images = reconstructed_images(batch, self.image, centre=0.0)
        parts = {
            "image": image_error(self.decoder, seen.latent[:, 1:], images),
            **heads,
            "dynamics": kl.dynamics.mean().clamp(min=config.free_nats),
            "representation": kl.representation.mean().clamp(min=config.free_nats),
        }
        loss = (
            config.image_coef * parts["image"]
            + parts["reward"]
            + parts["continue"]
            + config.dynamics_coef * parts["dynamics"]
            + config.representation_coef * parts["representation"]
        )
        metrics: Metrics = {f"train/{name}_loss": part.detach() for name, part in parts.items()}
        metrics["train/kl"] = kl.dynamics.detach().mean()
        metrics["train/total_loss"] = loss.detach()
        return ModelOutput(loss, metrics, self._states(seen, targets))

    def head_logits(self, batch: Batch, targets: Targets) -> Heads:
        """Logits of reward ``[B, T, bins]`` and continuation ``[B, T]`` as ``loss`` sees them."""
        hidden = self._observe_all(batch, targets).hidden[:, 1:]
        return head_logits(hidden, self.reward, self.continues)

    def head_losses(self, logits: Heads, batch: Batch, targets: Targets) -> Heads:
        """What ``loss`` makes of such logits."""
        return head_losses(logits, self.two_hot, 1.0 - batch.terminated, targets)

    @torch.no_grad()
    def observe_batch(self, batch: Batch, targets: Targets) -> ModelState:
        """Posterior states ``[B, T + 1, ...]``: the same tensors as ``loss`` gives."""
        with restored_rng(), frozen_statistics():
            return self._states(self._observe_all(batch, targets), targets)

    def initial_state(self, num: int) -> ModelState:
        """States ``[num, ...]`` before anything was observed; they remember ``act_context``."""
        device, size, window = (
            self.dynamics.first_output.device,
            self.shape.size,
            self.config.act_context,
        )
        tokens = Tokens(
            torch.zeros(num, window, size, device=device),
            torch.zeros(num, window, self.action_size, device=device),
            torch.zeros(num, window, dtype=torch.bool, device=device),
        )
        latent = torch.zeros(num, size, device=device)
        hidden = torch.zeros(num, self.config.transformer.size, device=device)
        return {"latent": latent, "shown": latent, "hidden": hidden, **tokens.to_state()}

    def _process(self, tokens: Tokens) -> tuple[Tensor, KVCache]:
        """Outputs ``[N, D]`` of the last tokens, and keys and values of all."""
        hidden, cache = self.dynamics.sequence(tokens.latent, tokens.action, tokens.mask())
        return hidden[:, -1], cache._replace(valid=tokens.valid)

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
        old = Tokens.of(state)
        before = torch.where(begins, self.dynamics.first_latent(), state["latent"])
        tokens = old._replace(valid=old.valid & ~begins)
        tokens = tokens.append(before, action.masked_fill(begins, 0.0))
        hidden, _ = self._process(tokens)
        posterior = self.encoder(self.image.as_float(obs))
        noise, prior_noise = (
            gumbel_noise(tuple(posterior.shape), device=hidden.device, generator=generator)
            for _ in range(2)
        )
        latent = straight_through(posterior, noise).flatten(-2)
        shown = self._shown(latent, hidden, prior_noise)
        return {"latent": latent, "shown": shown, "hidden": hidden, **tokens.to_state()}

    @torch.no_grad()
    def begin_rollout(self, state: ModelState, horizon: int) -> ModelState:
        """Process all contexts in one batch and make backup for ``horizon`` steps."""
        hidden, cache = self._process(Tokens.of(state))
        shown = state["shown"]
        return {
            "latent": shown,
            "shown": shown,
            "hidden": hidden,
            **cache.with_room(horizon).to_state(),
        }

    @torch.no_grad()
    def imagine(
        self,
        state: ModelState,
        action: Tensor,
        *,
        generator: Generator | None = None,
        most_likely: bool = False,
    ) -> ModelState:
        """Prior states ``[N, ...]`` after actions; without ``begin_rollout`` the window slides."""
        if "past_latent" in state:
            tokens = Tokens.of(state).append(state["latent"], action)
            hidden, memory = self._process(tokens)[0], tokens.to_state()
        else:
            cache = KVCache.from_state(state)
            hidden, cache = self.dynamics.step(state["latent"], action, cache)
            memory = cache.to_state()
        prior = self.dynamics.prior(hidden)
        drawn = (
            straight_through(prior, None)
            if most_likely
            else draw_one_hot(prior, generator=generator)
        )
        latent = drawn.flatten(-2)
        return {"latent": latent, "shown": latent, "hidden": hidden, **memory}

    def features(self, state: ModelState) -> Tensor:
        """Latent and output ``[..., F]``, float32."""
        return torch.cat([state["shown"], state["hidden"].float()], -1)

    def predict_reward(self, features: Tensor) -> Tensor:
        """Expected reward ``[...]`` of arriving in ``[..., F]``. The latent does not enter."""
        return self.two_hot.decode(self.reward(features[..., self.shape.size :]).float())

    def predict_continue(self, features: Tensor) -> Tensor:
        """One where the episode more likely continues, else zero ``[...]``."""
        return (self.continues(features[..., self.shape.size :])[..., 0] > 0.0).float()

    def decode(self, features: Tensor) -> Observation:
        """Expected images ``[..., C, H, W]`` in [0, 1]."""
        latent = features[..., : self.shape.size]
        return {self.image.name: decoded(self.decoder, latent, centre=0.0)}
