r"""The agent of every world model with an imagination actor-critic: DreamerV3, STORM, TWISTER.

One update, the same for every optimizer:

1. ``targets(batch)``: noise, masks and crops, drawn once.
2. ``optimizer.step(closure)``: the loss as often as the optimizer wants, all of it on these.
3. Actor and critic learn on rollouts from the posterior states of the unperturbed model. They are
   those of the first evaluation; an optimizer that never evaluates there has them computed before.

What differs between the agents is the world model, the two networks and their optimizers; each
agent's folder puts them together.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from mbrl_flat.agents.actor_critic import ActorCritic, BoundedOptimizer, Replayed
from mbrl_flat.agents.head_losses import probe_loss
from mbrl_flat.agents.imagination import (
    ImaginationModel,
    ModelOutput,
    ModelState,
    flatten_states,
    imagine,
)
from mbrl_flat.agents.imagination_config import ImaginationConfig
from mbrl_flat.agents.nonfinite_guard import step_allowed
from mbrl_flat.data.batch import Batch, first_part
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import (
    AgentState,
    Metrics,
    Mode,
    Observation,
    Prediction,
    ProbeLoss,
    Targets,
)
from mbrl_flat.models.functional import full_precision
from mbrl_flat.optim.averaging import evaluation_params
from mbrl_flat.optim.base import FlatOptimizer, OptimizerFactory, joint_norm
from mbrl_flat.optim.closure_evaluator import ClosureOfPart
from mbrl_flat.optim.groups import module_groups
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.specs import EnvSpec

_OWN = ("action", "is_first", "value")
"""What the agent's state holds beside the model's."""


class ImaginationAgent:
    """Acts on the states of a world model and learns behaviour in its imagination.

    Args:
        name: The agent's name; a checkpoint of another one is refused.
        spec: The environment's shapes.
        model: The world model, an ``nn.Module`` as well.
        actor_critic: Policy and critic.
        optimizers: Of the behaviour, by name.
        config: Batch size, horizon and rates that all imagination agents share.
        optimizer: Makes the world model's optimizer from its parameter groups.
        device: Where everything lives.
        compile: Compile the world-model loss with ``torch.compile``.
        batch_coupling: See ``mbrl_flat.interfaces.Agent``.
    """

    across_episodes = True
    """Subsequences run over the ends of episodes: ``is_first`` resets the recurrent state."""
    predicts_termination = True
    """``predict`` gives a probability that the episode continues."""

    def __init__(
        self,
        name: str,
        spec: EnvSpec,
        *,
        model: ImaginationModel,
        actor_critic: ActorCritic,
        optimizers: Mapping[str, BoundedOptimizer],
        config: ImaginationConfig,
        optimizer: OptimizerFactory,
        device: torch.device,
        compile: bool = False,
        batch_coupling: str = "",
    ) -> None:
        self.batch_coupling = batch_coupling
        self.name, self.spec, self.config, self.device = name, spec, config, device
        self.model, self.actor_critic, self.optimizers = model, actor_critic, dict(optimizers)
        self.discount = actor_critic.config.discount
        self._module.eval()
        groups = module_groups(model.trained_modules())
        self.optimizer: FlatOptimizer = optimizer(groups, max_grad_norm=config.max_grad_norm)
        self.optimizer.configure({"compiled": compile})
        self._loss = torch.compile(model.loss) if compile else model.loss

    @property
    def _module(self) -> nn.Module:
        return cast(nn.Module, self.model)

    @property
    def sequence_length(self) -> int:
        """Transitions in a subsequence of the batches that ``update`` takes."""
        return self.config.sequence_length

    @property
    def batch_size(self) -> int:
        """Subsequences in a batch that ``update`` takes."""
        return self.config.batch_size

    def _autocast(self) -> AbstractContextManager[Any]:
        # With full precision that of the optimizer's ascent, if it has one, stays.
        if self.config.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def initial_state(self, num_envs: int) -> AgentState:
        """The model's initial states, no action, and every episode about to begin."""
        size = self.spec.action.size
        return {
            **self.model.initial_state(num_envs),
            "action": torch.zeros(num_envs, size, device=self.device),
            "is_first": torch.ones(num_envs, dtype=torch.bool, device=self.device),
            "value": torch.zeros(num_envs, device=self.device),
        }

    def reset_state(self, state: AgentState, is_first: Tensor) -> AgentState:
        """Return ``state`` with episodes about to begin where ``is_first`` ``[N]``."""
        return {**state, "is_first": state["is_first"] | is_first.to(self.device)}

    @torch.no_grad()
    def act(
        self, obs: Observation, state: AgentState, *, mode: Mode, generator: torch.Generator | None
    ) -> tuple[Tensor, AgentState]:
        """Take in observations and choose actions ``[N, A]``.

        Args:
            obs: Observations ``[N, ...]``.
            state: What the last call returned, or ``initial_state``.
            mode: ``explore`` and ``policy`` sample the policy; ``eval`` does what
                ``config.eval_action`` says.
            generator: The only source of randomness, on the agent's device; torch's own if
                ``None``.

        Returns:
            Actions as the environment's spec sees them, and the next state, whose ``value`` is
            the critic's.
        """
        obs = {name: value.to(self.device) for name, value in obs.items()}
        before = {name: value for name, value in state.items() if name not in _OWN}
        with evaluation_params(self.optimizer), self._autocast():
            after = self.model.observe(
                before, state["action"], obs, state["is_first"], generator=generator
            )
            features = self.model.features(after)
            if mode == "eval" and self.config.eval_action == "mode":
                action = self.actor_critic.actor.mode(features)
            else:
                action = self.actor_critic.act(features, generator=generator)
            value = self.actor_critic.value(features)
        action = self.spec.action.project(action)
        began = torch.zeros_like(state["is_first"])
        return action, {**after, "action": action, "is_first": began, "value": value}

    def update(self, batch: Batch) -> Metrics:
        """Make one step of the world model, then one of actor and critic.

        Args:
            batch: Subsequences ``[B, T]`` on any device.

        Returns:
            Losses at the weights before the step, and what the optimizer reports.
        """
        batch = batch.to(self.device)
        self._module.train()
        targets = self.model.targets(batch)
        outputs: list[ModelOutput] = []
        states = None if self.optimizer.clean_first else self._observe(batch, targets)

        def evaluate(fraction: float) -> Tensor:
            self.optimizer.zero_grad()
            with self._autocast():
                output = self._loss(*first_part(batch, targets, fraction))
            output.loss.backward()
            outputs.append(output)
            return output.loss.detach()

        self.optimizer.step(ClosureOfPart(evaluate))
        self._module.eval()
        report = {f"optim/{name}": value for name, value in self.optimizer.last.items()}
        metrics: Metrics = {**outputs[self.optimizer.reported].metrics, **report}
        if not self.optimizer.last["skipped"]:
            # States of a batch that was not finite would ruin the policy for good.
            metrics |= self._learn_behaviour(batch, states or self._clean(outputs[0].states))
        return metrics

    def _clean(self, states: ModelState) -> ModelState:
        """States of an ascent in lower precision in that of the agent."""
        if self.config.precision == "bfloat16":
            return states
        return {name: full_precision(value) for name, value in states.items()}

    def _observe(self, batch: Batch, targets: Targets) -> ModelState:
        with torch.no_grad(), self._autocast():
            return self.model.observe_batch(batch, targets)

    def _learn_behaviour(self, batch: Batch, states: ModelState) -> Metrics:
        """Imagine from all observations after the first and step actor and critic."""
        states = {name: value[:, 1:] for name, value in states.items()}
        with self._autocast():
            imagined = imagine(
                self.model, self.actor_critic, flatten_states(states), self.config.horizon
            )
            if self.config.start_continue == "recorded":
                imagined = imagined.starting_with(1.0 - batch.terminated)
            losses = self.actor_critic.losses(imagined, self._replayed(batch, states))
        loss = losses.actor + losses.critic
        loss.backward()
        metrics = dict(losses.metrics)
        for name, bounded in self.optimizers.items():
            allowed = partial(step_allowed, self.optimizer, name=name)
            metrics[f"train/{name}_grad_norm"] = bounded.step(loss, step_allowed=allowed)
        self.actor_critic.update_slow_critic()
        return {**metrics, "optim/skipped": float(self.optimizer.last["skipped"])}

    def _replayed(self, batch: Batch, states: ModelState) -> Replayed | None:
        if self.actor_critic.config.replay_coef == 0.0:
            return None
        is_last = torch.zeros_like(batch.terminated, dtype=torch.bool)
        if batch.is_first is not None:
            is_last[:, :-1] = batch.is_first[:, 2:]
        return Replayed(
            features=self.model.features(states).detach(),
            reward=batch.reward[:, 1:],
            terminated=batch.terminated[:, 1:],
            is_last=is_last,
        )

    def param_norm(self) -> Tensor:
        """Euclidean norm of the world model's trained weights, a scalar."""
        modules = self.model.trained_modules().values()
        return joint_norm([p.detach() for module in modules for p in module.parameters()])

    def probe_loss(self, batch: Batch) -> ProbeLoss:
        """The loss on ``batch`` as a deterministic function of the weights (no dropout)."""
        return probe_loss(self.model, batch.to(self.device))

    @torch.no_grad()
    def posterior(self, batch: Batch) -> Tensor:
        """Packed posterior states of the batch's observations ``[B, T + 1, D]``."""
        batch = batch.to(self.device)
        with restored_rng():
            # The same noise in every call: what is left is the difference of the observations.
            torch.manual_seed(0)
            targets = self.model.targets(batch)
        return self.model.pack(self.model.observe_batch(batch, targets))

    @torch.no_grad()
    def predict(self, latent: Tensor, action: Tensor) -> Prediction:
        """One open-loop step to the most likely state, for ``[N, D]`` and actions ``[N, A]``."""
        state = self.model.imagine(self.model.unpack(latent), action, most_likely=True)
        features = self.model.features(state)
        return Prediction(
            latent=self.model.pack(state),
            reward=self.model.predict_reward(features),
            cont=self.model.predict_continue(features),
        )

    @torch.no_grad()
    def features(self, latent: Tensor) -> Tensor:
        """What actor, critic and heads see ``[..., F]`` of packed states ``[..., D]``."""
        return self.model.features(self.model.unpack(latent))

    @torch.no_grad()
    def value(self, latent: Tensor) -> Tensor:
        """The critic's value of the policy at packed states ``[N, D]``."""
        return self.actor_critic.value(self.features(latent))

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Observation:
        """Expected observations of packed states ``[N, D]``; images in [0, 1]."""
        return self.model.decode(self.features(latent))

    def state_dict(self) -> dict[str, Any]:
        """Weights, slow critic, range of returns and all optimizers."""
        return {
            "name": self.name,
            "model": self._module.state_dict(),
            "actor_critic": self.actor_critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "learners": {
                k: bounded.optimizer.state_dict() for k, bounded in self.optimizers.items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave.

        Args:
            state: State of an agent of the same name and sizes.

        Raises:
            UserError: If it is another agent's.
        """
        if state.get("name") != self.name:
            raise UserError(
                f"This checkpoint is of the agent {state.get('name', 'tdmpc2')!r}, not of "
                f"{self.name!r}; load it with the agent that wrote it."
            )
        self._module.load_state_dict(state["model"])
        self.actor_critic.load_state_dict(state["actor_critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, bounded in self.optimizers.items():
            bounded.optimizer.load_state_dict(state["learners"][name])
