"""TD-MPC2: plan with a learned world model, learn the model with any optimizer.

References:
    Hansen et al., "TD-MPC2: Scalable, Robust World Models for Continuous Control", ICLR 2024,
    arXiv:2310.16828.

Deviations from the paper:
    Discrete actions are one-hot vectors with a straight-through gradient (the paper has only
    continuous ones). See ``world_model.py`` for the two deviations of the networks.
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from mbrl_flat.agents.nonfinite_guard import step_allowed
from mbrl_flat.agents.tdmpc2 import fused_loss, official_checkpoint
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.tdmpc2.encoder import augment, augment_batch
from mbrl_flat.agents.tdmpc2.planner import LatentPlanner
from mbrl_flat.agents.tdmpc2.policy import Policy, RunningScale
from mbrl_flat.agents.tdmpc2.policy_gradient import policy_gradient
from mbrl_flat.agents.tdmpc2.world_model import LossOutput, WorldModel
from mbrl_flat.data.batch import Batch, first_part
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
from mbrl_flat.optim.base import FlatOptimizer, OptimizerFactory
from mbrl_flat.optim.closure_evaluator import ClosureOfPart
from mbrl_flat.optim.groups import module_groups
from mbrl_flat.optim.synchronization import average_over_rows
from mbrl_flat.runtime.compilation import Compiled, own_gradients, owned
from mbrl_flat.runtime.device import multiplies_bfloat16, transfer
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.specs import EnvSpec


class TDMPC2:
    """The agent: world model, policy prior, planner and their updates.

    Args:
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``TDMPC2Config``.
        optimizer: Makes the world model's optimizer from its parameter groups.
        device: Where everything lives.
        compile: Compile the loss and the planner's objective with ``torch.compile``.
    """

    across_episodes = False
    """Subsequences stay within an episode: the model has no state to reset."""
    batch_coupling = ""
    """No part of the loss couples the rows of a batch, so processes may split it."""

    def __init__(
        self,
        spec: EnvSpec,
        *,
        config: TDMPC2Config,
        optimizer: OptimizerFactory,
        device: torch.device,
        compile: bool = False,
    ) -> None:
        self.spec = spec
        self.config = config
        self.device = device
        self.discount = config.discount(spec)
        self.task_discounts = tuple(config.discount(task) for task in spec.tasks)
        self.latent_size = config.dims["latent_dim"]
        self.predicts_termination = config.episodic
        self.model = WorldModel(spec, config).to(device).eval()
        self.policy = Policy(spec, config).to(device)
        self.planner = LatentPlanner(
            self.model, self.policy, config.planner_for(spec), dtype=config.planner_dtype
        )
        if config.planner_dtype == "bfloat16" and not multiplies_bfloat16(device):
            sys.stderr.write("planner_dtype=bfloat16 will be slower than float32 on this CPU\n")
        self.scale = RunningScale(config.target_rate, device)
        groups = module_groups(
            self.model.trained_modules(), lr_scales={"encoder": config.enc_lr_scale}
        )
        self.optimizer: FlatOptimizer = optimizer(groups, max_grad_norm=config.grad_clip)
        self.optimizer.configure({"compiled": compile})
        self.policy_optimizer = torch.optim.Adam(
            self.policy.parameters(), lr=config.policy_lr, eps=1e-5, fused=device.type != "mps"
        )
        self._graphs = compile and config.cuda_graphs
        self._loss: Callable[[Batch, Targets], LossOutput] = self.model.loss
        if compile:
            self._loss = Compiled(self.model.loss, "the loss", graphs=self._graphs)
            self.planner.compile(graphs=self._graphs)

    @property
    def sequence_length(self) -> int:
        """Transitions in a subsequence of the batches that ``update`` takes."""
        return self.config.horizon

    @property
    def batch_size(self) -> int:
        """Subsequences in a batch that ``update`` takes."""
        return self.config.batch_size

    def initial_state(self, num_envs: int) -> AgentState:
        """Zero plan means ``[N, H, A]`` and plan values ``[N]``."""
        shape = (num_envs, self.config.horizon, self.spec.action.size)
        return {
            "mean": torch.zeros(shape, device=self.device),
            "value": torch.zeros(num_envs, device=self.device),
        }

    def reset_state(self, state: AgentState, is_first: Tensor) -> AgentState:
        """Return ``state`` with zeros in the rows where ``is_first`` ``[N]``."""
        keep = (~is_first).to(self.device, torch.float32)
        return {
            "mean": state["mean"] * keep[:, None, None],
            "value": state["value"] * keep,
        }

    @torch.no_grad()
    def act(
        self, obs: Observation, state: AgentState, *, mode: Mode, generator: torch.Generator | None
    ) -> tuple[Tensor, AgentState]:
        """Choose actions ``[N, A]`` for observations ``[N, n]``.

        Args:
            obs: Observations by name, each ``[N, ...]``.
            state: What the last call returned, or ``initial_state``.
            mode: ``explore`` plans and adds noise, ``eval`` plans, ``policy`` samples the prior.
            generator: The only source of randomness, on the agent's device; torch's own if
                ``None``.

        Returns:
            Actions as the environment's spec sees them, and the next state, whose ``value`` is
            the estimate that goes with the choice.
        """
        here = {name: transfer(value, self.device) for name, value in obs.items()}
        shifted = augment(here, self.config.random_shift, generator=generator)
        with evaluation_params(self.optimizer):
            latent = self.model.encode(shifted)
            if mode == "policy":
                size = (latent.shape[0], self.spec.action.size)
                noise = torch.randn(size, generator=generator, device=self.device)
                action = self.policy(latent, noise).action
                return action, {**state, "value": self.value(latent)}
            plan = self.planner(latent, state["mean"], generator, explore=mode == "explore")
        return self.spec.action.project(plan.action), {"mean": plan.mean, "value": plan.value}

    def update(self, batch: Batch) -> Metrics:
        """Make one step of the world model, the policy and the target Q-functions.

        The optimizer may evaluate the closure any number of times: targets are fixed before it
        unless ``targets=recomputed``, and the policy learns on latents of the unperturbed model.

        Args:
            batch: Subsequences ``[B, H]`` on any device.

        Returns:
            Losses at the weights before the step, and what the optimizer reports.
        """
        # Once, before targets and loss: every evaluation of this step sees the same images.
        batch = augment_batch(batch.to(self.device), self.config.random_shift)
        self.model.train()
        fixed = self.config.targets == "fixed"
        targets = self.model.targets(batch, self.policy) if fixed else None
        outputs: list[LossOutput] = []
        on_rollout = self.config.policy_latents == "rollout"
        latents = self._rollout(batch) if on_rollout and not self.optimizer.clean_first else None

        def evaluate(fraction: float) -> Tensor:
            self.optimizer.zero_grad()
            wanted = targets or self.model.targets(batch, self.policy)
            outputs.append(self._evaluate(*first_part(batch, wanted, fraction)))
            return outputs[-1].loss.detach()

        self.optimizer.step(ClosureOfPart(evaluate))
        if self.model.tasks is not None:
            self.model.tasks.project()
        reported = outputs[self.optimizer.reported]
        report = {f"optim/{name}": value for name, value in self.optimizer.last.items()}
        metrics: Metrics = {**reported.metrics, **report}
        if not self.optimizer.last["skipped"]:
            # Latents of a batch that was not finite would ruin the policy for good.
            if not on_rollout:
                latents = self._encoded(batch)
            latents = full_precision(outputs[0].latents if latents is None else latents)
            metrics |= self._update_policy(self.model.with_current_tasks(latents, batch.obs))
        self.model.update_target()
        self.model.eval()
        return metrics

    def _evaluate(self, batch: Batch, targets: Targets) -> LossOutput:
        """Return the loss and leave its gradients; both outlive the next evaluation."""
        if self._loss == self.model.loss and fused_loss.usable(self.model, batch):
            return LossOutput(*fused_loss.differentiate(self.model, batch, targets))
        output = self._loss(batch, targets)
        output.loss.backward()
        if not self._graphs:
            return output
        own_gradients(list(self.model.parameters()))
        return owned(output)

    @torch.no_grad()
    def _rollout(self, batch: Batch) -> Tensor:
        """Latents ``[B, H + 1, D]`` of the model as it is."""
        return self.model.unroll_batch(batch)

    @torch.no_grad()
    def _encoded(self, batch: Batch) -> Tensor:
        """Latents ``[B, H, D]`` of the observations before each action, by the updated model."""
        return self.model.encode({name: value[:, :-1] for name, value in batch.obs.items()})

    def _update_policy(self, latents: Tensor) -> Metrics:
        """Step the policy on latents ``[B, T, D]``; Q-functions stay as they are."""
        sample, loss = policy_gradient(self.model, self.policy, latents, self.scale)
        params = self.policy_optimizer.param_groups[0]["params"]
        average_over_rows(params, loss)
        norm = nn.utils.clip_grad_norm_(params, self.config.grad_clip)
        if step_allowed(self.optimizer, norm, "policy"):
            self.policy_optimizer.step()
        return {
            "optim/skipped": float(self.optimizer.last.get("skipped", 0.0)),
            "train/policy_loss": loss.detach(),
            "train/policy_grad_norm": norm,
            "train/policy_entropy": sample.entropy.detach().mean(),
            "train/policy_scale": self.scale.value.clone(),
        }

    def param_norm(self) -> Tensor:
        """Euclidean norm of the world model's trained weights, a scalar."""
        parts = [p for m in self.model.trained_modules().values() for p in m.parameters()]
        return torch.stack(torch._foreach_norm([p.detach() for p in parts])).norm()

    def probe_loss(self, batch: Batch) -> ProbeLoss:
        """The loss on ``batch`` as a function of the weights alone: no dropout, no shifts."""
        batch = batch.to(self.device)
        with restored_rng():
            targets = self.model.targets(batch, self.policy)
        modules = {
            name: list(module.parameters()) for name, module in self.model.trained_modules().items()
        }
        categorical = self.model.categorical_loss(batch, targets)
        return ProbeLoss(lambda: self.model.loss(batch, targets).loss, modules, categorical)

    @torch.no_grad()
    def posterior(self, batch: Batch) -> Tensor:
        """Latents of the batch's observations ``[B, T + 1, D]``."""
        return self.model.encode(batch.to(self.device).obs)

    @torch.no_grad()
    def predict(self, latent: Tensor, action: Tensor) -> Prediction:
        """One open-loop step for latents ``[N, D]`` and actions ``[N, A]``."""
        after = self.model.step(latent, action)
        reward = self.model.two_hot.decode(self.model.reward(self.model.pair(latent, action)))
        cont = torch.ones_like(reward)
        if self.model.termination is not None:
            ended = self.model.termination(self.model.layout.network_input(after))[..., 0]
            cont = 1.0 - torch.sigmoid(ended)
        return Prediction(after, reward, cont)

    @torch.no_grad()
    def value(self, latent: Tensor) -> Tensor:
        """Value of the policy at latents ``[N, D]``, over all Q-functions and 16 actions."""
        noise = _fixed_noise(16, latent.shape[0], self.spec.action.size).to(latent)
        repeated = latent.expand(16, *latent.shape)
        action = self.policy(repeated, noise).action
        return self.model.q_values(repeated, action, None).mean((0, 1))

    def state_dict(self) -> dict[str, Any]:
        """Weights, targets, optimizers and the percentile scale."""
        return {
            "model": self.model.state_dict(),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "policy_optimizer": self.policy_optimizer.state_dict(),
            "scale": self.scale.value,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.model.load_state_dict(state["model"])
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy_optimizer.load_state_dict(state["policy_optimizer"])
        self.scale.value.copy_(state["scale"])

    def load_pretrained(self, state: Any) -> None:
        """Take weights of ours (without target networks) or of the official code; no optimizers."""
        if "policy" in state:
            q = {f"target_{k}": v for k, v in state["model"].items() if k.startswith("q.")}
            self.model.load_state_dict(state["model"] | q)
            self.policy.load_state_dict(state["policy"])
            self.scale.value.copy_(state["scale"])
            return
        weights = official_checkpoint.convert(state, self.spec, self.config)
        self.model.load_state_dict(weights.model)
        self.policy.load_state_dict(weights.policy)


@lru_cache(maxsize=4)
def _fixed_noise(*size: int) -> Tensor:
    """The same draws in every call, from no stream."""
    return torch.randn(size, generator=torch.Generator().manual_seed(0))
