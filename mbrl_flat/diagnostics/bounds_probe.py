"""The terms of the bounds, next to the gaps that they bound, on the schedule of a run."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.bounds import lipschitz_value_gap, loss_bound
from mbrl_flat.diagnostics.guard import preserve_state
from mbrl_flat.diagnostics.inspection import episode_batch, measured_weights, training_batch
from mbrl_flat.diagnostics.probe import SeededProbe
from mbrl_flat.diagnostics.rollout_error import open_loop
from mbrl_flat.diagnostics.sharpness import loss_regions, norms, sam_gap
from mbrl_flat.interfaces import Inspectable
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.settings import setting


@dataclass(kw_only=True, eq=False, repr=False)
class BoundsProbe(SeededProbe):
    """Bound and measured gap under one prefix, ``probe/bound/``, to be drawn together.

    ============================  ===============================================================
    ``loss_empirical``            world-model loss on training subsequences, ``L_S``
    ``loss_sharpness``            one-step SAM gap within ``rho``: a lower bound of ``S_rho``
    ``loss_complexity``           the PAC-Bayes complexity term
    ``loss_total``                their sum: the bound of the population loss
    ``loss_heldout``              what it bounds, measured on held-out subsequences
    ``value_reward``              ``e_r / (1 - gamma)``
    ``value_transition``          ``gamma Lip(V) E|z' - zhat'| / (1 - gamma)``
    ``value_total``               their sum: the bound of the value gap
    ``value_gap``                 measured: mean ``|G_k(recorded) - G_k(imagined)|``, each k rewards
                                  and the value of the latent after them, with recorded actions
    ``performance_total``         twice ``value_total``: what planning in the model costs at most
    ============================  ===============================================================

    The caveats of ``bounds.py`` hold, and two more. ``Lip(V)`` is the largest slope seen between
    predicted and actual latents, a lower bound of the constant. The number of samples is that of
    the stored transitions, as if they were independent. So ``loss_total`` and ``value_total`` show
    what moves with what; neither is a certificate.

    Attributes:
        rho: Radius of the perturbation of the weights, above 0.
        horizon: Steps k of the measured value gap.
        batch_size: Subsequences that the loss is averaged over.
        delta: Probability that the PAC-Bayes bound fails.
        seed: Determines the subsequences.

    Raises:
        UserError: If a number is out of range.
    """

    rho: float = setting(0.05, "(0, inf)")
    horizon: int = setting(10, "[1, inf)")
    batch_size: int = setting(256, "[2, inf)")
    delta: float = setting(0.05, "(0, 1)")

    def __call__(self, agent: Inspectable, replay: Replay) -> dict[str, float]:
        """Measure.

        Args:
            agent: The trained agent whose world model predicts; it is not changed.
            replay: Where the subsequences come from.

        Returns:
            The row.

        Raises:
            NothingToMeasure: If training or held-out episodes are not long enough.
        """
        rollouts = episode_batch(replay, self.batch_size, self.horizon, rng=self.rng, heldout=True)
        training, tested = (
            training_batch(agent, replay, self.batch_size, rng=self.rng, heldout=kind)
            for kind in (False, True)
        )
        seed = int(self.rng.integers(2**31))
        with measured_weights(agent), restored_rng():
            row = self._loss(agent, training, tested, len(replay), seed)
            row |= self._value(agent, rollouts)
        return {f"probe/bound/{name}": value for name, value in row.items()}

    def _loss(
        self, agent: Inspectable, training: Batch, tested: Batch, samples: int, seed: int
    ) -> dict[str, float]:
        torch.manual_seed(seed)
        probed = agent.probe_loss(training)
        params = [p for module in probed.modules.values() for p in module]
        with preserve_state(params=params):
            for p in params:
                p.requires_grad_(True)
            (region,) = loss_regions(probed, per_module=False)
            found = loss_bound(
                loss=region.value,
                gap=sam_gap(region, rho=self.rho),
                rho=self.rho,
                param_norm=norms(region, rho=self.rho)["param_norm"],
                num_params=region.gradient.numel(),
                num_samples=samples,
                delta=self.delta,
            )
        torch.manual_seed(seed)
        with torch.no_grad():
            heldout = float(agent.probe_loss(tested).loss())
        return {
            "loss_empirical": found.empirical,
            "loss_sharpness": found.sharpness,
            "loss_complexity": found.complexity,
            "loss_total": found.total,
            "loss_heldout": heldout,
        }

    @torch.no_grad()
    def _value(self, agent: Inspectable, batch: Batch) -> dict[str, float]:
        actual = agent.posterior(batch)
        batch = batch.to(actual.device)
        latent, reward, _ = open_loop(agent, actual[:, 0], batch.action)
        distance = (latent[:, 0] - actual[:, 1]).double().norm(dim=-1)
        rise = (agent.value(latent[:, 0]) - agent.value(actual[:, 1])).double().abs()
        moved = distance > 0.0
        lipschitz = float((rise[moved] / distance[moved]).max()) if bool(moved.any()) else 0.0
        found = lipschitz_value_gap(
            reward_error=float((reward[:, 0] - batch.reward[:, 0]).double().abs().mean()),
            latent_error=float(distance.mean()),
            lipschitz=lipschitz,
            discount=agent.discount,
        )
        imagined = _return(reward, agent.value(latent[:, -1]), agent.discount)
        recorded = _return(batch.reward, agent.value(actual[:, -1]), agent.discount)
        return {
            "value_reward": found.reward,
            "value_transition": found.transition,
            "value_total": found.total,
            "value_gap": float((imagined - recorded).abs().mean()),
            "performance_total": found.performance_gap,
        }


def _return(reward: Tensor, value: Tensor, discount: float) -> Tensor:
    """``sum_t gamma^t r_t + gamma^K V`` ``[B]`` of rewards ``[B, K]`` and values ``[B]``."""
    steps = torch.arange(reward.shape[1], device=reward.device, dtype=torch.float64)
    weights = discount**steps
    return reward.double() @ weights + discount ** reward.shape[1] * value.double()
