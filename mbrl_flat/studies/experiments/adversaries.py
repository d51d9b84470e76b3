r"""SAM's adversary and its moving averages, watched side by side along one trajectory.

At the weights ``w`` of a step, with the gradient ``g_t`` of its batch and the full gradient ``G``,

.. math::
    d_t^\theta = (1 - \theta) d_{t-1}^\theta + \theta g_t, \qquad
    \epsilon^\theta = \rho \, d_t^\theta / \|d_t^\theta\|, \qquad
    \mathrm{error} = \|\epsilon^\theta - \rho G / \|G\|\|^2 / \rho^2

``theta = 1`` is SAM's own direction. All are compared at the same weights, so nothing but the
direction differs.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mbrl_flat.optim.norms import inner, joint_norm
from mbrl_flat.optim.perturbation import WeightBackup
from mbrl_flat.optim.sharpness_aware import Perturbation, PerturbationRule, SelectedParams
from mbrl_flat.optim.snapshots import frozen_statistics


class Adversaries:
    """A perturbation that lets another one act and measures alternatives to it.

    Args:
        acting: What perturbs the weights.
        thetas: Weights of the new gradient whose averages are watched; 1 is SAM.
        full_loss: The loss of all training examples at the current weights.
        every: Steps between measurements.

    Raises:
        ValueError: If 1 is not among ``thetas``.
    """

    def __init__(
        self,
        acting: PerturbationRule,
        *,
        thetas: Sequence[float],
        full_loss: Callable[[], Tensor],
        every: int,
    ) -> None:
        if 1.0 not in thetas:
            raise ValueError(f"The averages are compared with SAM: 1.0 must be in {thetas}.")
        self.acting, self.full_loss, self.every = acting, full_loss, every
        self._means: dict[float, list[Tensor]] = {theta: [] for theta in thetas}
        self._previous: dict[float, list[Tensor]] = {}
        self._backup = WeightBackup()
        self._seen: dict[str, list[float]] = {}

    def __call__(self, selection: SelectedParams) -> Perturbation:
        """Return the perturbation of the one that acts."""
        perturbation = self.acting(selection)
        directions = {theta: self._direction(theta, selection.grads) for theta in self._means}
        for theta, previous in self._previous.items():
            self._note("cosine", theta, float(inner(directions[theta], previous)))
        self._previous = directions
        if selection.step and selection.step % self.every == 0:
            self._compare(selection, directions)
        return perturbation

    def means(self) -> dict[str, float]:
        """Return means over the trajectory.

        Returns:
            ``cosine_THETA`` of successive directions, ``error_THETA``, and ``excess_THETA``: how
            far the full loss at the adversary's point is above that at SAM's.
        """
        return {name: math.fsum(values) / len(values) for name, values in self._seen.items()}

    def _direction(self, theta: float, grads: list[Tensor]) -> list[Tensor]:
        old = self._means[theta]
        mean = torch._foreach_lerp(old, grads, theta) if old else [grad.clone() for grad in grads]
        self._means[theta] = list(mean)
        return list(torch._foreach_mul(mean, 1.0 / (joint_norm(list(mean)) + 1e-12)))

    def _compare(self, selection: SelectedParams, directions: dict[float, list[Tensor]]) -> None:
        with frozen_statistics():
            with torch.enable_grad():
                full = list(torch.autograd.grad(self.full_loss(), selection.params))
            length = joint_norm(full) + 1e-12
            losses = {}
            for theta, direction in directions.items():
                cosine = float(inner(direction, full) / length)
                self._note("error", theta, 2.0 - 2.0 * cosine)
                with self._backup.perturbed(
                    selection.params, selection.times_radius(direction, 1.0)
                ):
                    losses[theta] = float(self.full_loss())
        for theta, loss in losses.items():
            self._note("excess", theta, loss - losses[1.0])

    def _note(self, name: str, theta: float, value: float) -> None:
        self._seen.setdefault(f"{name}_{theta:g}", []).append(value)
