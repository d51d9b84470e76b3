"""Training of supervised models: any optimizer, exact repetition, divergence with its step."""

import math

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS
from mbrl_flat.studies.models import Perceptron
from mbrl_flat.studies.sharpness import measure_sharpness
from mbrl_flat.studies.training import (
    DivergedError,
    Recipe,
    accuracy,
    half_squared_error,
    loss_function,
    refresh_statistics,
    train,
)

X = torch.randn(96, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def model(norm="batch"):
    torch.manual_seed(0)
    return Perceptron(5, (16,), 3, norm=norm)


def weights(network):
    return [p.detach().clone() for p in network.parameters()]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_of_the_registry_learns(name):
    network, entry = model(), OPTIMIZERS[name]
    settings = {"ess": 1000.0} if name == "ivon" else {}
    settings = {key: value for key, value in settings.items() if key in entry.settings}
    lr = {"adam": 0.01, "adamw": 0.01, "bsam": 1.0}.get(name, 0.1)
    settings |= {"rho": 0.05} if "rho" in entry.settings else {}

    trained = train(
        network,
        X,
        Y,
        Recipe(optimizer=name, settings=settings, lr=lr, epochs=12, batch_size=32),
        seed=0,
    )

    assert trained.steps == 36
    assert accuracy(network, X, Y) > 0.6
    assert not network.training


def test_training_repeats_itself_exactly():
    first, second = model(), model()
    recipe = Recipe(optimizer="sam", settings={"rho": 0.1}, epochs=3, batch_size=32)

    reports = [train(network, X, Y, recipe, seed=1) for network in (first, second)]

    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))
    assert reports[0].loss == reports[1].loss
    assert reports[0].cosine == reports[1].cosine


def test_a_radius_of_zero_is_the_base_bit_for_bit():
    plain, sam = model(), model()

    train(plain, X, Y, Recipe(epochs=3, batch_size=32), seed=1)
    train(
        sam, X, Y, Recipe(optimizer="sam", settings={"rho": 0.0}, epochs=3, batch_size=32), seed=1
    )

    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(sam), strict=True))


def test_a_full_batch_step_is_gradient_descent():
    network = Perceptron(5, (4,), 3, activation="tanh").double()
    before = weights(network)
    x, y = X.double(), Y
    loss = half_squared_error(network(x), y)
    grads = torch.autograd.grad(loss, list(network.parameters()))

    recipe = Recipe(
        lr=0.3, momentum=0.0, epochs=1, batch_size=None, loss="squared", schedule="constant"
    )
    report = train(network, x, y, recipe, seed=0)

    expected = [w - 0.3 * g for w, g in zip(before, grads, strict=True)]
    torch.testing.assert_close(weights(network), expected, rtol=1e-12, atol=1e-12)
    assert report.loss == pytest.approx(loss.item(), rel=1e-12)


def test_the_squared_error_is_that_of_one_hot_labels():
    outputs = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    labels, targets = torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    by_hand = 0.5 * (0.0 + 4.0 + 0.0 + 4.0) / 2.0

    assert float(half_squared_error(outputs, labels)) == by_hand
    assert float(half_squared_error(outputs, targets)) == by_hand


def test_the_learning_rate_rises_and_falls_to_zero_along_a_cosine():
    rates = []
    recipe = Recipe(lr=0.1, epochs=4, batch_size=32, warmup_epochs=1.0)

    train(
        model(),
        X,
        Y,
        recipe,
        seed=0,
        on_step=lambda s: rates.append(s.optimizer.param_groups[0]["lr"]),
    )

    total = 12
    expected = [
        0.1 * min(1.0, (step + 1) / 3) * 0.5 * (1.0 + math.cos(math.pi * step / total))
        for step in range(1, total + 1)
    ]
    assert rates == pytest.approx(expected, abs=1e-12)


def test_divergence_names_the_step_and_not_a_number():
    network = Perceptron(5, (16,), 1).double()
    recipe = Recipe(
        lr=50.0, momentum=0.0, epochs=300, batch_size=None, loss="squared", schedule="constant"
    )

    with pytest.raises(DivergedError, match="diverged at step") as caught:
        train(network, X.double(), X[:, :1].double(), recipe, seed=0)

    assert 0 < caught.value.step < 300


def test_a_loss_above_its_bound_counts_as_divergence():
    recipe = Recipe(lr=0.1, epochs=3, batch_size=32, max_loss=0.01)

    with pytest.raises(DivergedError, match=r"step 0: the loss is .* above 0.01") as caught:
        train(model(), X, Y, recipe, seed=0)

    assert caught.value.step == 0


def test_refreshed_statistics_are_those_of_the_data():
    network = model()
    train(network, X, Y, Recipe(epochs=2, batch_size=32), seed=0)
    before = weights(network)

    refresh_statistics(network, X, batch_size=96)

    layer = next(m for m in network.modules() if isinstance(m, nn.BatchNorm1d))
    features = network[1](X)
    torch.testing.assert_close(layer.running_mean, features.mean(0).detach())
    torch.testing.assert_close(layer.running_var, features.var(0).detach())
    assert layer.momentum == 0.1
    assert all(torch.equal(a, b) for a, b in zip(before, weights(network), strict=True))


def test_the_sharpness_of_a_linear_regression_is_the_largest_eigenvalue_of_its_gram_matrix():
    network = nn.Linear(5, 1, bias=False).double()
    x, y = X.double(), torch.zeros(96, 1, dtype=torch.float64)

    measured = measure_sharpness(network, x, y, half_squared_error)

    expected = float(torch.linalg.eigvalsh(x.mT @ x / 96)[-1])
    assert measured["lambda_max"] == pytest.approx(expected, rel=1e-4)
    assert measured["param_norm"] == pytest.approx(network.weight.norm().item(), rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "smm"}, "'smm'.*'sam'"),
        ({"base": "sdg"}, "'sdg'.*'sgd'"),
        ({"schedule": "cosin"}, "'cosin'.*'cosine'"),
        ({"loss": "square"}, "'square'.*'squared'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Recipe(**settings)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UserError, match="batch_size=97 exceeds the 96"):
        train(model(), X, Y, Recipe(batch_size=97), seed=0)


def test_label_smoothing_reaches_the_loss():
    outputs, labels = torch.randn(8, 3), torch.randint(3, (8,))

    smooth = loss_function(Recipe(label_smoothing=0.1))(outputs, labels)

    expected = nn.functional.cross_entropy(outputs, labels, label_smoothing=0.1)
    torch.testing.assert_close(smooth, expected)
