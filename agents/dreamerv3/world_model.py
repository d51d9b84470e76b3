r"""The world model of DreamerV3: encoder, RSSM, decoder, reward and continuation heads.

``targets`` draws the noise of all posterior samples once; ``loss`` is then a function of the
weights alone, so any optimizer may evaluate it as often as it likes.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104, Eq. 3-5, and
    the official code.

Deviations from the paper:
    The first observation of a subsequence is context outside the loss, and its recurrent
    state starts from zeros; the official code starts it from the state stored in the replay, and
    stores the new one there. The replay critic loss does not reach the representation, so that the
    world model's loss is what the optimizer under study trains and nothing else.
"""

from functools import partial

import torch
from torch import Generator, Tensor, nn

from mbrl_flat.agents.dreamerv3.config import DreamerV3Config
from mbrl_flat.agents.dreamerv3.observations import Decoder, Encoder
from mbrl_flat.agents.dreamerv3.rssm import NORM, RSSM
from mbrl_flat.agents.head_losses import head_logits, head_losses
from mbrl_flat.agents.imagination import Heads, ModelOutput, ModelState
from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import Metrics, Observation, Targets
from mbrl_flat.models.categorical import balanced_kl, draw_one_hot, gumbel_noise, straight_through
from mbrl_flat.models.functional import SymexpTwoHot, full_precision
from mbrl_flat.models.perceptron import Perceptron, fan_in_normal_
from mbrl_flat.specs import EnvSpec

zeros_ = partial(fan_in_normal_, scale=0.0)
"""Starts a head at zero."""


class WorldModel(nn.Module):
    """Networks and their joint loss.

    Args:
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``DreamerV3Config``.
        discount: Folded into the target of the continuation head.
    """

    def __init__(self, spec: EnvSpec, config: DreamerV3Config, *, discount: float) -> None:
        super().__init__()
        units = config.dims["units"]
        self.config, self.discount = config, discount
        self.bins = SymexpTwoHot(num_bins=config.num_bins, limit=config.bin_limit)
        self.encoder = Encoder(spec, config)
        self.dynamics = RSSM(self.encoder.out_features, spec.action.size, config)
        self.deter_size, stoch_size = self.dynamics.deter_size, self.dynamics.stoch_size
        self.feature_size = self.deter_size + stoch_size
        self.reward = Perceptron(
            self.feature_size, [units], config.num_bins, norm=NORM, out_init=zeros_
        )
        self.continuation = Perceptron(self.feature_size, [units], 1, norm=NORM)
        self.decoder = Decoder(self.deter_size, stoch_size, spec, config)

    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules that the loss trains, by the names that users select."""
        return {
            "encoder": self.encoder,
            "dynamics": self.dynamics,
            "reward": self.reward,
            "continue": self.continuation,
            "decoder": self.decoder,
        }

    def targets(self, batch: Batch) -> Targets:
        """Draw the Gumbel noise of the posterior samples, and place the rewards in the bins."""
        num, steps = batch.reward.shape
        noise = gumbel_noise((num, steps + 1, *self.dynamics.shape), device=batch.reward.device)
        lower, share = self.bins.position(batch.reward)
        return Targets(noise=noise.to(batch.reward.dtype), r_lower=lower, r_share=share)

    def _unroll(self, batch: Batch, targets: Targets) -> tuple[ModelState, Tensor]:
        """Posterior states ``[B, T + 1, ...]`` and log probabilities ``[B, T + 1, S, C]``."""
        before = torch.zeros_like(batch.action[:, :1])
        action = torch.cat([before, batch.action], 1)
        first = torch.zeros(action.shape[:2], dtype=torch.bool, device=action.device)
        if batch.is_first is not None:
            first = first | batch.is_first
        unrolled = self.dynamics.unroll(self.encoder(batch.obs), action, first, targets["noise"])
        return {"deter": unrolled.deter, "stoch": unrolled.stoch}, unrolled.posterior

    def loss(self, batch: Batch, targets: Targets) -> ModelOutput:
        r"""World-model loss (Eq. 5), the mean over all observations but the first.

        .. math::
            L = -\ln p(x_t) - \ln p(r_t) - \ln p(c_t)
                + \beta_{dyn} \max(1, KL(sg(q) \| p)) + \beta_{rep} \max(1, KL(q \| sg(p)))

        The reward and continuation that belong to ``o_{t+1}`` are those of transition t.

        Args:
            batch: Subsequences of T transitions.
            targets: What ``targets`` returned for this batch.

        Returns:
            Loss, its parts and the posterior states.
        """
        config = self.config
        states, posterior = self._unroll(batch, targets)
        features = self.features(states)[:, 1:]
        prior = self.dynamics.prior_log_probs(states["deter"][:, 1:])
        kl = balanced_kl(posterior[:, 1:], prior)
        seen = {name: value[:, 1:] for name, value in batch.obs.items()}
        images = self.encoder.images
        errors = {k: v.mean() for k, v in self.decoder.losses(features, seen).items()}
        parts = {f"{name}_reconstruction": value for name, value in errors.items()}
        parts |= self.head_losses(
            head_logits(features, self.reward, self.continuation), batch, targets
        )
        weighed = [config.image_coef * v if k in images else v for k, v in errors.items()]
        loss = torch.stack([*weighed, parts["reward"], parts["continue"]]).sum()
        parts["dynamics"] = kl.dynamics.clamp(min=config.free_nats).mean()
        parts["representation"] = kl.representation.clamp(min=config.free_nats).mean()
        loss = loss + config.dynamics_coef * parts["dynamics"]
        loss = loss + config.representation_coef * parts["representation"]
        metrics: Metrics = {f"train/{k}_loss": v.detach() for k, v in parts.items()}
        metrics["train/total_loss"] = loss.detach()
        metrics["train/kl"] = kl.dynamics.detach().mean()
        metrics["train/posterior_entropy"] = _entropy(posterior)
        metrics["train/prior_entropy"] = _entropy(prior)
        return ModelOutput(loss, metrics, {name: value.detach() for name, value in states.items()})

    def head_logits(self, batch: Batch, targets: Targets) -> Heads:
        """Logits of reward ``[B, T, bins]`` and continuation ``[B, T]`` as ``loss`` sees them."""
        features = self.features(self._unroll(batch, targets)[0])[:, 1:]
        return head_logits(features, self.reward, self.continuation)

    def head_losses(self, logits: Heads, batch: Batch, targets: Targets) -> Heads:
        """What ``loss`` makes of such logits."""
        continues = self.discount * (1.0 - batch.terminated)
        return head_losses(logits, self.bins, continues, targets)

    @torch.no_grad()
    def observe_batch(self, batch: Batch, targets: Targets) -> ModelState:
        """Posterior states ``[B, T + 1, ...]`` of a batch, without gradient."""
        return self._unroll(batch, targets)[0]

    def initial_state(self, num: int) -> ModelState:
        """Zeros: ``deter`` ``[num, D]`` and ``stoch`` ``[num, S C]``."""
        return self.dynamics.initial_state(num)

    def observe(
        self,
        state: ModelState,
        action: Tensor,
        obs: Observation,
        is_first: Tensor,
        *,
        generator: Generator | None = None,
    ) -> ModelState:
        """Take in one observation.

        Args:
            state: States ``[N, ...]`` of the step before.
            action: Actions ``[N, A]`` that led here; ignored where ``is_first``.
            obs: Observations ``[N, ...]``.
            is_first: Where an episode begins, bool ``[N]``.
            generator: Source of the samples.

        Returns:
            The posterior states.
        """
        keep = (~is_first).to(action.dtype)[:, None]
        state = {name: value * keep for name, value in state.items()}
        deter = self.dynamics.advance(state, action * keep)
        log_probs = self.dynamics.posterior_log_probs(deter, self.encoder(obs))
        return {"deter": deter, "stoch": draw_one_hot(log_probs, generator=generator).flatten(1)}

    def begin_rollout(self, state: ModelState, horizon: int) -> ModelState:
        """Return the state as it is: a recurrent one needs no room."""
        del horizon
        return state

    def imagine(
        self,
        state: ModelState,
        action: Tensor,
        *,
        generator: Generator | None = None,
        most_likely: bool = False,
    ) -> ModelState:
        """Prior states ``[N, ...]`` after actions ``[N, A]``; sampled, or the most likely ones."""
        deter = self.dynamics.advance(state, action)
        log_probs = self.dynamics.prior_log_probs(deter)
        if most_likely:
            return {"deter": deter, "stoch": straight_through(log_probs, None).flatten(1)}
        return {"deter": deter, "stoch": draw_one_hot(log_probs, generator=generator).flatten(1)}

    def features(self, state: ModelState) -> Tensor:
        """Both parts of the state side by side ``[..., D + S C]``."""
        return torch.cat([state["deter"], state["stoch"]], -1)

    def predict_reward(self, features: Tensor) -> Tensor:
        """Expected reward ``[...]`` of arriving in ``[..., F]``."""
        return self.bins.decode(full_precision(self.reward(features)))

    def predict_continue(self, features: Tensor) -> Tensor:
        """Probability ``[...]`` that the episode continues: the head's output without discount."""
        folded = torch.sigmoid(full_precision(self.continuation(features))[..., 0])
        return folded / self.discount

    def pack(self, state: ModelState) -> Tensor:
        """The features, which are the whole state ``[..., D]``."""
        return self.features(state)

    def unpack(self, latent: Tensor) -> ModelState:
        """Invert ``pack``: ``[..., D]`` to a state ``[..., ...]``."""
        deter, stoch = latent[..., : self.deter_size], latent[..., self.deter_size :]
        return {"deter": deter, "stoch": stoch}

    def decode(self, features: Tensor) -> Observation:
        """Expected observations ``[..., ...]``, images in [0, 1]."""
        return self.decoder(features)


def _entropy(log_probs: Tensor) -> Tensor:
    """Mean entropy of a state's categoricals together, in nats, from ``[..., S, C]``."""
    log_probs = log_probs.detach()
    return -(log_probs.exp() * log_probs).sum((-2, -1)).mean()
