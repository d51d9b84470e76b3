"""TD-MPC2's equations in plain loops, and a small float64 model to hold them against.

The equations come from Hansen et al., arXiv:2310.16828, Section 3 and appendix. Nothing of the
package is used to evaluate them but the values of its parameters.
"""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.tdmpc2.policy import Policy
from mbrl_flat.agents.tdmpc2.world_model import WorldModel
from mbrl_flat.data.batch import Batch
from mbrl_flat.optim.with_base import PlainOptimizer
from mbrl_flat.planning.mppi import MPPIConfig

CPU = torch.device("cpu")
PLANNER = MPPIConfig(num_samples=16, num_prior=4, num_elites=4, iterations=2)


class ByHand:
    """One function for each equation; parameters come in as ``{name: tensor}``."""

    num_bins, limit = 101, 10.0

    @staticmethod
    def parameters(module):
        return {name: value.detach().clone() for name, value in module.named_parameters()}

    def all_parameters(self, model, policy):
        """Copies of every module's parameters, by module name."""
        modules = {**model.trained_modules(), "target_q": model.target_q, "policy": policy.net}
        return {name: self.parameters(module) for name, module in modules.items()}

    @staticmethod
    def member(parameters, index):
        """One network of an ensemble, by the names of a single one."""
        one = {name: value[index] for name, value in parameters.items()}
        renamed = {}
        for depth in range(2):
            for part in ("weight", "bias"):
                renamed[f"{depth}.linear.{part}"] = one[f"hidden.{depth}.{part}"]
                renamed[f"{depth}.norm.{part}"] = one[f"norms.{depth}.{part}"]
        return {**renamed, "2.weight": one["last.weight"], "2.bias": one["last.bias"]}

    @staticmethod
    def layer_norm(x, weight, bias):
        mean = x.sum(-1, keepdim=True) / x.shape[-1]
        variance = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
        return (x - mean) / (variance + 1e-5) ** 0.5 * weight + bias

    @staticmethod
    def mish(x):
        return x * torch.tanh(torch.log(1.0 + torch.exp(x)))

    @staticmethod
    def simnorm(x, size=8):
        groups = x.shape[-1] // size
        out = [None] * x.shape[-1]
        for group in range(groups):
            members = [member * groups + group for member in range(size)]
            total = sum(torch.exp(x[..., i]) for i in members)
            for i in members:
                out[i] = torch.exp(x[..., i]) / total
        return torch.stack(out, -1)

    def mlp(self, parameters, x, *, simnorm=False):
        """Linear, LayerNorm and Mish for each hidden layer; then linear, or linear and SimNorm."""
        depth = 0
        while f"{depth}.linear.weight" in parameters:
            x = x @ parameters[f"{depth}.linear.weight"].T + parameters[f"{depth}.linear.bias"]
            x = self.layer_norm(
                x, parameters[f"{depth}.norm.weight"], parameters[f"{depth}.norm.bias"]
            )
            is_last = f"{depth + 1}.linear.weight" not in parameters
            x = self.simnorm(x) if simnorm and is_last else self.mish(x)
            depth += 1
        if simnorm:
            return x
        return x @ parameters[f"{depth}.weight"].T + parameters[f"{depth}.bias"]

    def bins(self):
        step = 2.0 * self.limit / (self.num_bins - 1)
        return [-self.limit + step * i for i in range(self.num_bins)]

    def two_hot(self, y):
        """Probabilities of one float, as a list."""
        bins = self.bins()
        place = math.copysign(math.log(1.0 + abs(y)), y)
        place = min(max(place, -self.limit), self.limit)
        probs = [0.0] * self.num_bins
        for i in range(self.num_bins - 1):
            if bins[i] <= place <= bins[i + 1]:
                probs[i] = (bins[i + 1] - place) / (bins[i + 1] - bins[i])
                probs[i + 1] = 1.0 - probs[i]
                return probs
        probs[0 if place < 0 else -1] = 1.0
        return probs

    def cross_entropy(self, logits, y):
        """``-sum_i p_i log q_i`` of logits ``[..., num_bins]`` and scalars ``[...]``."""
        flat, targets = logits.reshape(-1, self.num_bins), y.reshape(-1).tolist()
        rows = []
        for row, target in zip(flat, targets, strict=True):
            log_q = row - torch.log(torch.exp(row).sum())
            probs = torch.tensor(self.two_hot(target), dtype=row.dtype)
            rows.append(-(probs * log_q).sum())
        return torch.stack(rows).reshape(logits.shape[:-1])

    def decode(self, logits):
        probs = torch.exp(logits) / torch.exp(logits).sum(-1, keepdim=True)
        mean = (probs * torch.tensor(self.bins(), dtype=logits.dtype)).sum(-1)
        return torch.sign(mean) * (torch.exp(mean.abs()) - 1.0)

    def policy(self, parameters, latent, noise):
        """Actions ``[..., A]`` and the Gaussian log density before squashing ``[...]``."""
        out = self.mlp(parameters, latent)
        size = out.shape[-1] // 2
        mean, raw = out[..., :size], out[..., size:]
        log_std = -10.0 + 0.5 * 12.0 * (torch.tanh(raw) + 1.0)
        density = torch.zeros_like(latent[..., 0])
        for i in range(size):
            density = density - 0.5 * noise[..., i] ** 2 - log_std[..., i]
            density = density - 0.5 * math.log(2.0 * math.pi)
        return torch.tanh(mean + noise * torch.exp(log_std)), density

    def q(self, parameters, head, latent, action):
        pair = torch.cat([latent, action], -1)
        return self.decode(self.mlp(self.member(parameters, head), pair))

    def td_targets(self, p, batch, *, discount, heads, noise):
        """Targets ``[B, H]`` and next latents, from parameters ``p`` by module name."""
        latent = self.mlp(p["encoder"], batch.obs["state"][:, 1:], simnorm=True)
        action, _ = self.policy(p["policy"], latent, noise)
        values = [self.q(p["target_q"], int(head), latent, action) for head in heads]
        smallest = torch.minimum(values[0], values[1])
        return batch.reward + discount * (1.0 - batch.terminated) * smallest, latent

    def losses(self, p, batch, y, next_latent, *, decay=0.5):
        """Parts of the world-model loss, and the rollout as a list of latents."""
        horizon, num_q = batch.reward.shape[1], p["q"]["last.bias"].shape[0]
        latents = [self.mlp(p["encoder"], batch.obs["state"][:, 0], simnorm=True)]
        parts = dict.fromkeys(("consistency", "reward", "value", "termination"), 0.0)
        for t in range(horizon):
            pair = torch.cat([latents[-1], batch.action[:, t]], -1)
            weight = decay**t / horizon
            reward = self.cross_entropy(self.mlp(p["reward"], pair), batch.reward[:, t])
            parts["reward"] = parts["reward"] + weight * reward.mean()
            for head in range(num_q):
                logits = self.mlp(self.member(p["q"], head), pair)
                value = self.cross_entropy(logits, y[:, t]).mean()
                parts["value"] = parts["value"] + weight * value / num_q
            latents.append(self.mlp(p["dynamics"], pair, simnorm=True))
            error = ((latents[-1] - next_latent[:, t]) ** 2).mean()
            parts["consistency"] = parts["consistency"] + weight * error
            if "termination" in p:
                prob = torch.sigmoid(self.mlp(p["termination"], latents[-1])[..., 0])
                ended = batch.terminated[:, t]
                bce = -(ended * torch.log(prob) + (1.0 - ended) * torch.log(1.0 - prob))
                parts["termination"] = parts["termination"] + bce.mean() / horizon
        return parts, latents


@pytest.fixture
def by_hand():
    return ByHand()


@pytest.fixture
def config():
    return TDMPC2Config(size="debug", dropout=0.0, episodic=True, batch_size=4)


@pytest.fixture
def make_model(spec):
    """Build a float64 world model and policy none of whose parameters is zero."""

    def make(config, spec=spec, seed=0):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        model, policy = WorldModel(spec, config).double(), Policy(spec, config).double()
        with torch.no_grad():
            for parameter in [*model.parameters(), *policy.parameters()]:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.3 * noise)
        return model.eval(), policy

    return make


@pytest.fixture
def make_batch(spec):
    def make(size=4, horizon=3, seed=0, terminated=True):
        g = torch.Generator().manual_seed(seed)
        ends = torch.zeros(size, horizon, dtype=torch.float64)
        if terminated:
            ends[1, -1] = 1.0
            ends[2, 0] = 1.0
        return Batch(
            obs={"state": torch.randn(size, horizon + 1, 3, generator=g, dtype=torch.float64)},
            action=2.0 * torch.rand(size, horizon, 2, generator=g, dtype=torch.float64) - 1.0,
            reward=3.0 * torch.randn(size, horizon, generator=g, dtype=torch.float64),
            terminated=ends,
        )

    return make


def adam(**settings):
    return partial(PlainOptimizer, base=partial(torch.optim.Adam, lr=3e-4), **settings)


@pytest.fixture
def make_agent(spec, config):
    """Build an agent none of whose parameters is zero, in float32 unless asked otherwise."""

    def make(config=config, spec=spec, *, dtype=torch.float32, seed=0, **settings):
        torch.manual_seed(seed)
        config = replace(config, planner=PLANNER)
        agent = TDMPC2(spec, config=config, optimizer=adam(**settings), device=CPU)
        with torch.no_grad():
            for parameter in [*agent.model.parameters(), *agent.policy.parameters()]:
                parameter.add_(0.3 * torch.randn_like(parameter))
        agent.model.to(dtype)
        agent.policy.to(dtype)
        agent.scale.value = agent.scale.value.to(dtype)
        return agent

    return make


@pytest.fixture
def make_batch32(make_batch):
    """As ``make_batch``, in float32."""

    def make(**settings):
        batch = make_batch(**settings)
        return Batch(
            obs={name: value.float() for name, value in batch.obs.items()},
            action=batch.action.float(),
            reward=batch.reward.float(),
            terminated=batch.terminated.float(),
        )

    return make
