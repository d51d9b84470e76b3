r"""A linear-Gaussian system, of which every value and every error is known in closed form.

s' = A s + B a + w,  w ~ N(0, W);   r = c^T s;   a = K s + u,  u ~ N(0, U)

V(s) = p^T s,  p = (I - gamma (A + B K)^T)^{-1} c
Var(G - V) = gamma^2 / (1 - gamma^2) p^T (W + B U B^T) p
E|zhat_k - s_k|^2 = tr S_k,  S_k = sum_{j<k} A^j W A^jT  for a model without the noise
"""

import math

import numpy as np
import pytest
import torch

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.episode import Episode
from mbrl_flat.diagnostics.rollout_error import rollout_errors
from mbrl_flat.diagnostics.value_error import value_error
from mbrl_flat.interfaces import Prediction

DISCOUNT, BIAS = 0.9, 0.7
A = np.array([[0.8, 0.2, 0.0], [0.0, 0.7, 0.1], [0.1, 0.0, 0.6]])
B = np.array([[0.5, 0.0], [0.0, 0.3], [0.2, 0.2]])
K = np.array([[-0.2, 0.0, 0.1], [0.0, -0.3, 0.0]])
C = np.array([1.0, -0.5, 0.25])
W, U = np.diag([0.04, 0.09, 0.01]), np.diag([0.05, 0.02])
CLOSED = A + B @ K
P = np.linalg.solve(np.eye(3) - DISCOUNT * CLOSED.T, C)


def simulate(num, steps, *, noise=1.0, seed=0):
    """States ``[num, steps + 1, 3]`` from the stationary distribution, and actions."""
    rng = np.random.default_rng(seed)
    spread = noise**2 * (W + B @ U @ B.T)
    stationary = np.linalg.solve(np.eye(9) - np.kron(CLOSED, CLOSED), spread.ravel()).reshape(3, 3)
    start = rng.multivariate_normal(np.zeros(3), stationary if noise else np.eye(3), size=num)
    states, actions = [start], []
    for _ in range(steps):
        action = states[-1] @ K.T + noise * rng.multivariate_normal(np.zeros(2), U, size=num)
        shock = noise * rng.multivariate_normal(np.zeros(3), W, size=num)
        actions.append(action)
        states.append(states[-1] @ A.T + action @ B.T + shock)
    return np.stack(states, 1), np.stack(actions, 1)


def episodes(states, *, bias):
    return [
        Episode(
            obs={"state": torch.from_numpy(row)},
            action=torch.zeros(len(row) - 1, 2),
            reward=torch.from_numpy(row[:-1] @ C),
            terminated=False,
            value=torch.from_numpy(row[:-1] @ P + bias),
        )
        for row in states
    ]


class Model:
    """The mean of the system as a world model, with the policy's exact value."""

    discount = DISCOUNT

    def __init__(self, dynamics=A):
        self.dynamics = torch.from_numpy(dynamics)

    def posterior(self, batch):
        return batch.obs["state"]

    def predict(self, latent, action):
        reward = latent @ torch.from_numpy(C)
        after = latent @ self.dynamics.T + action @ torch.from_numpy(B).T
        return Prediction(after, reward, torch.ones_like(reward))

    def value(self, latent):
        return latent @ torch.from_numpy(P)

    def probe_loss(self, batch):
        raise NotImplementedError


def recorded(states, actions):
    return Batch(
        obs={"state": torch.from_numpy(states)},
        action=torch.from_numpy(actions),
        reward=torch.from_numpy(states[:, :-1] @ C),
        terminated=torch.zeros(states.shape[0], states.shape[1] - 1, dtype=torch.float64),
    )


def errors_after(steps, kept):
    """Covariance of the prediction's error after each of ``steps``, with dynamics ``kept``."""
    total, power = np.zeros((3, 3)), np.eye(3)
    for _ in range(steps):
        total = total + power @ kept @ power.T
        power = A @ power
        yield total


def test_bias_and_rmse_of_known_estimates_come_out_within_sampling_error():
    states, _ = simulate(400, 250)
    # One step an episode: independent draws, so that the sampling error is known as well.
    found = value_error(episodes(states[:, :200], bias=BIAS), DISCOUNT, tolerance=1e-8)
    variance = DISCOUNT**2 / (1.0 - DISCOUNT**2) * float(P @ (W + B @ U @ B.T) @ P)

    # Steps of an episode share their noise over some 1 / (1 - gamma) steps: 400 x 2 are free.
    free = 800.0
    assert abs(found["bias"] - BIAS) <= 4.0 * math.sqrt(variance / free)
    assert found["rmse"] ** 2 == pytest.approx(
        BIAS**2 + variance, abs=4.0 * variance * math.sqrt(2.0 / free) + 0.1
    )
    assert found["bootstrapped"] == 1.0


def test_exact_values_of_a_system_without_noise_have_no_error():
    states, _ = simulate(8, 400, noise=0.0)

    found = value_error(episodes(states, bias=0.0), DISCOUNT, tolerance=1e-12)

    assert abs(found["bias"]) < 1e-10
    assert found["rmse"] < 1e-10
    assert found["spearman"] == pytest.approx(1.0, abs=1e-9)


def test_errors_of_every_horizon_are_those_of_the_noise():
    num = 20_000
    states, actions = simulate(num, 6)

    row = rollout_errors(Model(), recorded(states, actions))

    flat = states.reshape(-1, 3)
    spread = float(((flat - flat.mean(0)) ** 2).sum(-1).mean())
    relative = 5.0 * math.sqrt(2.0 / num)
    covariances = [np.zeros((3, 3)), *errors_after(6, W)]
    for k in range(1, 7):
        there, before = covariances[k], covariances[k - 1]
        value = math.sqrt(2.0 / math.pi * float(P @ there @ P))
        reward = math.sqrt(2.0 / math.pi * float(C @ before @ C))
        assert row[f"latent_error_{k}"] == pytest.approx(np.trace(there) / spread, rel=relative)
        assert row[f"value_error_{k}"] == pytest.approx(value, rel=relative)
        assert row[f"reward_error_{k}"] == pytest.approx(reward, rel=relative, abs=1e-12)


def test_a_perfect_model_of_a_system_without_noise_has_no_error():
    row = rollout_errors(Model(), recorded(*simulate(50, 10, noise=0.0)))

    for k in range(1, 11):
        for name in ("latent_error", "reward_error", "value_error", "termination_error"):
            assert row[f"{name}_{k}"] == pytest.approx(0.0, abs=1e-12)


def test_an_error_in_the_dynamics_adds_its_powers_to_the_noise():
    """Without noise, zhat_k - s_k = sum_j Ahat^j (Ahat - A) s_{k-1-j} exactly."""
    wrong = A + 0.05 * np.eye(3)
    states, actions = simulate(64, 4, noise=0.0)

    row = rollout_errors(Model(wrong), recorded(states, actions))

    flat = states.reshape(-1, 3)
    spread = float(((flat - flat.mean(0)) ** 2).sum(-1).mean())
    for k in range(1, 5):
        error = sum(
            states[:, k - 1 - j] @ (np.linalg.matrix_power(wrong, j) @ (wrong - A)).T
            for j in range(k)
        )
        expected = float((error**2).sum(-1).mean()) / spread
        assert row[f"latent_error_{k}"] == pytest.approx(expected, rel=1e-9)
