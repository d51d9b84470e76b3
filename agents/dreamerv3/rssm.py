r"""The recurrent state-space model: a deterministic state h and a categorical state z.

    h_t = f(h_{t-1}, z_{t-1}, a_{t-1}),   z_t ~ q(z | h_t, e_t),   zhat_t ~ p(z | h_t)

A state is ``{"deter": [N, D], "stoch": [N, S C]}``, S one-hot vectors of C classes side by side.
Where an episode begins, h, z and a before it are zero.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104, Eq. 3, and
    the official code (``rssm.py``).
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.agents.actors import into_box
from mbrl_flat.agents.dreamerv3.config import DreamerV3Config
from mbrl_flat.agents.imagination import ModelState
from mbrl_flat.models.block_gru import BlockGRU
from mbrl_flat.models.categorical import straight_through, unimix
from mbrl_flat.models.functional import full_precision
from mbrl_flat.models.norms import RMSNorm
from mbrl_flat.models.perceptron import Perceptron

NORM = partial(RMSNorm, eps=1e-4)
"""Makes the normalisation that all layers of DreamerV3 have."""


class Unrolled(NamedTuple):
    """What a pass over sequences gives; time is the second dimension."""

    deter: Tensor
    """``[B, T, D]``."""
    stoch: Tensor
    """Posterior samples ``[B, T, S C]``."""
    posterior: Tensor
    """Log probabilities ``[B, T, S, C]``."""


class RSSM(nn.Module):
    """Recurrence, posterior and prior.

    Args:
        embed_size: Size of the encoder's output.
        action_size: Size of an action.
        config: Sizes, coefficients and rates; see ``DreamerV3Config``.
    """

    def __init__(self, embed_size: int, action_size: int, config: DreamerV3Config) -> None:
        super().__init__()
        dims = config.dims
        self.deter_size, hidden = dims["deter"], dims["hidden"]
        self.shape = (config.categoricals, dims["classes"])
        self.stoch_size = config.categoricals * dims["classes"]
        self.unimix = config.unimix
        self.embed_deter = Perceptron(self.deter_size, [hidden], None, norm=NORM)
        self.embed_stoch = Perceptron(self.stoch_size, [hidden], None, norm=NORM)
        self.embed_action = Perceptron(action_size, [hidden], None, norm=NORM)
        self.core = BlockGRU(3 * hidden, self.deter_size, config.blocks)
        size = self.deter_size + embed_size
        self.posterior = Perceptron(size, [hidden], self.stoch_size, norm=NORM)
        self.prior = Perceptron(self.deter_size, [hidden] * 2, self.stoch_size, norm=NORM)

    def initial_state(self, num: int) -> ModelState:
        """Zeros ``[num, ...]``."""
        like = self.core.from_input.weight
        return {
            "deter": like.new_zeros(num, self.deter_size),
            "stoch": like.new_zeros(num, self.stoch_size),
        }

    def advance(self, state: ModelState, action: Tensor) -> Tensor:
        """The next deterministic state ``[N, D]`` after actions ``[N, A]``."""
        return self._advance(state["deter"], state["stoch"], self.embed_action(into_box(action)))

    def _advance(self, deter: Tensor, stoch: Tensor, embedded: Tensor) -> Tensor:
        x = torch.cat([self.embed_deter(deter), self.embed_stoch(stoch), embedded], -1)
        return self.core(deter, x)

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log probabilities ``[..., S, C]`` of logits ``[..., S C]``."""
        return unimix(full_precision(logits).unflatten(-1, self.shape), self.unimix)

    def prior_log_probs(self, deter: Tensor) -> Tensor:
        """Log probabilities of the prior ``[..., S, C]`` at ``[..., D]``."""
        return self.log_probs(self.prior(deter))

    def posterior_log_probs(self, deter: Tensor, embed: Tensor) -> Tensor:
        """Log probabilities of the posterior ``[..., S, C]`` at ``[..., D]`` and ``[..., E]``."""
        return self.log_probs(self.posterior(torch.cat([deter, embed], -1)))

    def unroll(self, embed: Tensor, action: Tensor, is_first: Tensor, noise: Tensor) -> Unrolled:
        """Run the posterior over sequences from zero states.

        What does not depend on the state is computed for all steps at once: the embedded actions
        and the part of the posterior's first layer that sees the observations.

        Args:
            embed: Encoded observations ``[B, T, E]``.
            action: Actions that led to them ``[B, T, A]``.
            is_first: Where an episode begins, bool ``[B, T]``.
            noise: Gumbel draws ``[B, T, S, C]``.

        Returns:
            States and posteriors.
        """
        keep = (~is_first).to(embed.dtype)[..., None]
        actions = self.embed_action(into_box(action) * keep).unbind(1)
        first = self.posterior[0]
        assert isinstance(first, nn.Linear)
        seen = F.linear(embed, first.weight[:, self.deter_size :], first.bias).unbind(1)
        weight = first.weight[:, : self.deter_size]
        deter, stoch = self.initial_state(embed.shape[0]).values()
        deters, stochs, posteriors = [], [], []
        for t, kept in enumerate(keep.unbind(1)):
            deter = self._advance(deter * kept, stoch * kept, actions[t])
            x = F.linear(deter, weight) + seen[t]
            for layer in list(self.posterior)[1:]:
                x = layer(x)
            log_probs = self.log_probs(x)
            stoch = straight_through(log_probs, noise[:, t]).flatten(1)
            deters.append(deter)
            stochs.append(stoch)
            posteriors.append(log_probs)
        return Unrolled(torch.stack(deters, 1), torch.stack(stochs, 1), torch.stack(posteriors, 1))
