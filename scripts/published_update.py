"""Compare updates of the public code of TD-MPC2 with SAM with ours, all its differences set.

Both sides get the same weights, batches and draws (noise of the policy, pairs of Q-functions,
dropout masks) in float64. A checkout of https://github.com/stablegradients/TDMPC2-SAM (a5e93b1) is
copied to a temporary folder, where it is put on the CPU; it needs ``tensordict``. Then each
difference is left out in turn, which shows how much of the update it makes.

    python scripts/published_update.py --peer ../TDMPC2-SAM
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from bench_peer import Buffer, official_agent

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import SIZES, TDMPC2Config
from mbrl_flat.agents.tdmpc2.official_checkpoint import convert
from mbrl_flat.data.batch import Batch
from mbrl_flat.models.ensemble import EnsembleMLP
from mbrl_flat.optim import make_optimizer
from mbrl_flat.specs import Continuous, EnvSpec

OBS, ACTION, HORIZON, ROWS, CLIP, DROPOUT, LR = 24, 6, 3, 32, 0.5, 0.1, 3e-4
"""Sizes of walker-walk, a small batch, a bound that clips, and dropout that is felt."""
SPEC = EnvSpec(
    obs={"state": (OBS,)}, action=Continuous(dim=ACTION), episode_length=500, action_repeat=2
)
RANDPERM = torch.randperm
"""The real one, while that of torch is replaced."""
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """Settings of our side.

    Attributes:
        optimizer: Name and settings of the world model's optimizer.
        config: What differs from TD-MPC2's own hyperparameters.
    """

    optimizer: Mapping[str, Any]
    config: Mapping[str, Any]

    def but(self, optimizer: Mapping[str, Any] | None = None, **config: Any) -> "Recipe":
        """The same with some settings replaced."""
        return Recipe({**self.optimizer, **(optimizer or {})}, {**self.config, **config})


def published(rho: float) -> Recipe:
    """All differences of the public code."""
    selected = ["encoder", "dynamics"]
    optimizer = {
        "name": "sam_as_published", "rho": rho, "only": selected, "clip_scope": "module",
        "same_rng": False,
    }  # fmt: skip
    return Recipe(optimizer, {"reward_coef": 0.3, "value_coef": 0.3, "policy_latents": "encoded"})


def variants(rho: float) -> dict[str, Recipe]:
    """The published recipe, and it without each of its parts."""
    whole = published(rho)
    clean = {"name": "sam", "unselected_gradient": "clean"}
    return {
        "all pieces": whole,
        "losses divided by the horizon": whole.but(reward_coef=0.1, value_coef=0.1),
        "policy on rollout latents": whole.but(policy_latents="rollout"),
        "one joint bound": whole.but({"clip_scope": "joint"}),
        "heads step at the end, nothing left over": whole.but(clean),
        "targets recomputed": whole.but(targets="recomputed"),
        "no perturbation": whole.but({"rho": 1e-12}),
    }


@dataclass
class Draws:
    """Random numbers by the order in which they are asked for, the same for both sides.

    Attributes:
        seed: Of an update.
        counts: How many of each kind were given.
    """

    seed: int
    counts: dict[str, int] = field(default_factory=dict)

    def _generator(self, kind: str) -> torch.Generator:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        number = 1000 * self.seed + 100 * self.counts[kind] + len(kind)
        return torch.Generator().manual_seed(number)

    def noise(self, steps: int) -> Tensor:
        """Standard normal ``[T, B, A]``."""
        return torch.randn(steps, ROWS, ACTION, generator=self._generator("noise"))

    def heads(self, count: int) -> Tensor:
        """A permutation of the Q-functions."""
        return RANDPERM(count, generator=self._generator("heads"))

    def mask(self, steps: int, width: int) -> Tensor:
        """Dropout's factors ``[T, B, width]``, common to all Q-functions."""
        drawn = torch.rand(steps, ROWS, width, generator=self._generator("mask"))
        return (drawn >= DROPOUT).to(drawn.dtype) / (1.0 - DROPOUT)


@contextmanager
def their_draws(draws: Draws) -> Iterator[None]:
    """Let the public code take its random numbers from ``draws``."""
    # Drawn before: it maps over its Q-functions, where each would get numbers of its own.
    width = SIZES["1"]["mlp_dim"]
    masks = iter([draws.mask(HORIZON, width) for _ in range(3)])

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        del p, inplace
        return x * next(masks) if training else x

    with (
        mock.patch("torch.randn_like", lambda like: draws.noise(like.shape[0])),
        mock.patch("torch.randperm", lambda count, **_: draws.heads(count)),
        mock.patch("torch.nn.functional.dropout", dropout),
    ):
        yield


@contextmanager
def our_draws(agent: TDMPC2, draws: Draws) -> Iterator[None]:
    """Let our agent take the same ones, batch first."""

    def mask(self: EnsembleMLP, num: int, like: Tensor) -> Tensor | None:
        if not self.training:
            return None
        width = agent.config.dims["mlp_dim"]
        drawn = draws.mask(len(like) // ROWS, width).transpose(0, 1).reshape(1, -1, width)
        return drawn.expand(num, -1, -1).contiguous()

    def forward(latent: Tensor, noise: Tensor | None = None) -> Any:
        noise = draws.noise(latent.shape[1]).transpose(0, 1) if noise is None else noise
        return type(agent.policy).forward(agent.policy, latent, noise)

    def heads(_: torch.device) -> Tensor:
        return draws.heads(agent.config.dims["num_q"])[:2]

    with (
        mock.patch.object(EnsembleMLP, "dropout_mask", mask),
        mock.patch.object(agent.policy, "forward", forward),
        mock.patch.object(agent.model, "draw_heads", heads),
    ):
        yield


def batch_of(seed: int) -> tuple[Tensor, ...]:
    """Observations, actions, rewards and terminations, time first."""
    g = torch.Generator().manual_seed(seed)
    obs = torch.randn(HORIZON + 1, ROWS, OBS, generator=g)
    action = 2.0 * torch.rand(HORIZON, ROWS, ACTION, generator=g) - 1.0
    reward = 2.0 * torch.rand(HORIZON, ROWS, 1, generator=g)
    return obs, action, reward, torch.zeros(HORIZON, ROWS, 1)


def as_ours(batch: tuple[Tensor, ...]) -> Batch:
    """The same batch as our agent takes it."""
    obs, action, reward, terminated = (part.transpose(0, 1) for part in batch)
    return Batch(
        obs={"state": obs}, action=action, reward=reward[..., 0], terminated=terminated[..., 0]
    )


def our_agent(recipe: Recipe) -> TDMPC2:
    """Our agent with a recipe, in the default type."""

    def optimizer(params: Any, *, max_grad_norm: float | None = None) -> Any:
        settings = dict(recipe.optimizer)
        base = partial(torch.optim.Adam, lr=LR)
        return make_optimizer(
            settings.pop("name"), params, base=base, max_grad_norm=max_grad_norm, **settings
        )

    config = TDMPC2Config(
        size="1", dropout=DROPOUT, grad_clip=CLIP, batch_size=ROWS, **recipe.config
    )
    agent = TDMPC2(SPEC, config=config, optimizer=optimizer, device=torch.device("cpu"))
    dtype = torch.get_default_dtype()
    agent.model.to(dtype)
    agent.policy.to(dtype)
    agent.scale.value = agent.scale.value.to(dtype)
    return agent


def weights_of(agent: TDMPC2) -> Weights:
    """All weights by module and name."""
    policy = {f"policy.{name}": value for name, value in agent.policy.state_dict().items()}
    return {k: v.detach().clone() for k, v in {**agent.model.state_dict(), **policy}.items()}


def our_weights(start: Any, recipe: Recipe, updates: int) -> list[Weights]:
    """Weights after each update of our agent, from a state of the public code."""
    agent = our_agent(recipe)
    agent.load_pretrained(start)
    found: list[Weights] = []
    for number in range(updates):
        with our_draws(agent, Draws(number)):
            agent.update(as_ours(batch_of(number)))
        found.append(weights_of(agent))
    return found


def largest_difference(a: Weights, b: Weights) -> dict[str, float]:
    """Largest difference of any weight, by module."""
    found: dict[str, float] = {}
    for name in a.keys() & b.keys():
        module = name.partition(".")[0]
        difference = float((a[name] - b[name]).abs().max())
        found[module] = max(found.get(module, 0.0), difference)
    return found


def their_weights(peer: Path, folder: Path, rho: float, updates: int) -> tuple[Any, list[Weights]]:
    """State of the public code before its updates, and its weights after each, named as ours."""
    settings = {
        "optimizer": "SAM", "sam_rho": rho, "batch_size": ROWS, "dropout": DROPOUT,
        "grad_clip_norm": CLIP,
    }  # fmt: skip
    torch.manual_seed(0)
    agent = official_agent(peer, folder, obs=OBS, action=ACTION, size=1, **settings)
    agent.scale.to(torch.get_default_dtype())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        # Its last layers start at zero, where gradients of what precedes them vanish.
        for parameter in agent.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    state = {name: value.clone() for name, value in agent.model.state_dict().items()
             if isinstance(value, Tensor)}  # fmt: skip
    config, found = our_agent(published(rho)).config, []
    for number in range(updates):
        with their_draws(Draws(number)):
            agent.update(Buffer(batch_of(number)))
        converted = convert(dict(agent.model.state_dict()), SPEC, config)
        policy = {f"policy.{name}": value for name, value in converted.policy.items()}
        found.append({k: v.detach().clone() for k, v in {**converted.model, **policy}.items()})
    return state, found


def main() -> None:
    """Print the largest difference of each recipe to the public code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="a checkout of the public code")
    parser.add_argument("--rho", type=float, default=0.01)
    parser.add_argument("--updates", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    with tempfile.TemporaryDirectory(prefix="published-") as folder:
        start, theirs = their_weights(
            arguments.peer, Path(folder), arguments.rho, arguments.updates
        )
    print("largest difference of a weight after each update; a step is about", LR)
    whole: list[dict[str, float]] = []  # of all pieces, which come first
    for name, recipe in variants(arguments.rho).items():
        ours = our_weights(start, recipe, arguments.updates)
        parts = [largest_difference(a, b) for a, b in zip(ours, theirs, strict=True)]
        numbers = "  ".join(f"{max(part.values()):.1e}" for part in parts)
        print(f"{name:42s} {numbers}")
        whole = whole or parts
    for module, value in sorted(whole[-1].items()):
        print(f"    {module:12s} {value:.1e}")
    if max(max(part.values()) for part in whole) > 1e-5:
        raise SystemExit("The updates differ by more than 1e-5.")


if __name__ == "__main__":
    main()
