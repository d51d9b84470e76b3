"""Training at a number of gradient evaluations, on the transformer of vectors."""

import numpy as np
import pytest
import torch

from mbrl_flat.errors import DivergedError
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.studies.offline.fitting import build_optimizer, fit, loss_on, sharpness_on
from mbrl_flat.studies.offline.transitions import Transitions
from mbrl_flat.studies.offline.vector_transformer import VectorTransformer

SPEC = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=20)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    arrays = {
        "obs": rng.normal(size=(4, 21, 3)).astype(np.float32),
        "action": rng.normal(size=(4, 20, 2)).astype(np.float32),
        "reward": rng.normal(size=(4, 20)).astype(np.float32),
    }
    return Transitions.of(arrays, length=20, discount=0.9)


def made(**changes):
    torch.manual_seed(0)
    settings = {"size": 8, "num_layers": 1, "num_heads": 2, "feedforward": 8, "batch_size": 4}
    return VectorTransformer(SPEC, **{**settings, "sequence_length": 6, "context": 3, **changes})


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("method", "budget", "updates"),
    [("adam", 9, 9), ("msam", 9, 9), ("sam", 9, 4), ("sam_on", 8, 4), ("random_direction", 8, 4)],
)
def test_gradient_evaluations_are_what_is_matched(data, method, budget, updates):
    model = made()
    calls, loss = [], model.loss
    model.loss = lambda subsequences, targets: calls.append(1) or loss(subsequences, targets)
    optimizer = build_optimizer(model, method, lr=1e-3, rho=0.05)

    spent = fit(model, data, optimizer, evaluations=budget, seed=0)

    assert (spent.updates, spent.evaluations) == (updates, len(calls))
    assert len(calls) <= budget
    assert not model.training


def test_methods_see_the_same_batches_and_without_radius_sam_is_adam(data):
    trained = []
    for method in ("adam", "sam"):
        model = made()
        # Without a radius SAM evaluates once.
        fit(model, data, build_optimizer(model, method, lr=1e-3), evaluations=5, seed=3)
        trained.append(weights(model))

    assert torch.equal(*trained)
    # Adam moves no weight by much more than its learning rate in each of five updates.
    moved = (trained[0] - weights(made())).abs()
    assert 1e-3 < float(moved.max()) < 1.5 * 5 * 1e-3


def test_a_loss_that_is_not_finite_is_divergence_with_its_step(data):
    model = made()
    broken = Transitions(obs=data.obs, action=data.action, reward=data.reward, returns=data.returns)
    broken.obs[:] = torch.nan

    with pytest.raises(DivergedError) as error:
        fit(model, broken, build_optimizer(model, "adam", lr=1e-3), evaluations=3, seed=0)

    assert error.value.step == 0


def test_measuring_sharpness_and_loss_leaves_the_weights(data):
    model = made().eval()
    subsequences = data.draw(16, 6, rng=np.random.default_rng(0))
    before = weights(model).clone()

    numbers = sharpness_on(model, subsequences)

    assert torch.equal(weights(model), before)
    assert numbers["scaled_lambda"] == numbers["lambda_max"] * numbers["param_norm"] ** 2
    torch.testing.assert_close(numbers["param_norm"], float(before.norm()), rtol=1e-5, atol=0.0)
    assert loss_on(model, subsequences) > 0.0


def test_the_start_predicts_no_change_and_its_loss_is_known(data):
    model = made().eval()
    subsequences = data.draw(16, 6, rng=np.random.default_rng(0))

    change = (subsequences.obs[:, 1:] - subsequences.obs[:, :-1]).square().mean()
    # Reward and value heads start uniform over 101 bins.
    expected = float(change) + 0.2 * float(np.log(101.0))

    torch.testing.assert_close(loss_on(model, subsequences), expected, rtol=1e-5, atol=0.0)


def test_the_loss_judges_the_first_step_of_what_is_foretold(data):
    model = made().eval()
    for head in (model.change, model.reward, model.value):
        torch.nn.init.normal_(head.weight)
    subsequences = data.draw(16, 5, rng=np.random.default_rng(0))

    ahead = model.predict(subsequences, 2)
    hidden = model._outputs(subsequences.obs[:, :3], subsequences.batch.action[:, :3])[:, -1]

    torch.testing.assert_close(ahead.obs[:, 0], subsequences.obs[:, 2])
    torch.testing.assert_close(ahead.obs[:, 1], subsequences.obs[:, 2] + model.change(hidden))
    torch.testing.assert_close(ahead.value[:, 0], model.two_hot.decode(model.value(hidden)))
    torch.testing.assert_close(ahead.reward[:, 0], model.two_hot.decode(model.reward(hidden)))


def test_nothing_recorded_after_the_context_but_actions_reaches_a_prediction(data):
    model = made().eval()
    for head in (model.change, model.reward, model.value):
        torch.nn.init.normal_(head.weight)
    subsequences = data.draw(16, 6, rng=np.random.default_rng(0))
    first = model.predict(subsequences, 3)

    subsequences.obs[:, 3:] = 7.0
    subsequences.batch.reward[:] = 7.0
    second = model.predict(subsequences, 3)
    subsequences.batch.action[:, 3] += 1.0
    third = model.predict(subsequences, 3)

    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)
    torch.testing.assert_close(third.obs[:, 1], first.obs[:, 1])
    assert not torch.allclose(third.obs[:, 2], first.obs[:, 2])
