"""The shared actor-critic: every loss in plain numbers, in float64."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Normal

from mbrl_flat.agents.actor_critic import ActorCritic, ActorCriticConfig, BoundedOptimizer, Replayed
from mbrl_flat.agents.actors import CategoricalActor, GaussianActor, make_actor
from mbrl_flat.agents.imagination import Imagined
from mbrl_flat.errors import UserError
from mbrl_flat.models.functional import SymexpTwoHot, TwoHot
from mbrl_flat.specs import Continuous, Discrete

EXACT = {"rtol": 1e-10, "atol": 1e-10}
SIZE = 3


def linear(num):
    return nn.Linear(SIZE, num)


def make(config=None, bins=None, seed=0):
    torch.manual_seed(seed)
    bins = bins or SymexpTwoHot(num_bins=11, limit=3.0)
    actor = CategoricalActor(2, linear, mix=0.01)
    config = config or ActorCriticConfig(discount=0.9)
    module = ActorCritic(actor, nn.Linear(SIZE, bins.num_bins), bins, config).double()
    with torch.no_grad():
        for parameter in module.slow_critic.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def rollout(num=4, horizon=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    draw = partial(torch.rand, generator=g, dtype=torch.float64)
    action = torch.nn.functional.one_hot(torch.randint(2, (num, horizon), generator=g), 2)
    return Imagined(
        features=draw(num, horizon + 1, SIZE) * 4.0 - 2.0,
        action=action.double(),
        reward=draw(num, horizon) * 3.0,
        cont=draw(num, horizon + 1),
    )


def numbers(module, imagined, network=None):
    """Values, returns and weights by loops over plain floats."""
    config, bins = module.config, module.bins
    network = network or module.critic
    values = bins.decode(network(imagined.features)).tolist()
    returns, weights = [], []
    for n, reward in enumerate(imagined.reward.tolist()):
        cont = imagined.cont[n].tolist()
        running, row = values[n][-1], []
        for t in reversed(range(len(reward))):
            mixed = (1.0 - config.lambda_) * values[n][t + 1] + config.lambda_ * running
            running = reward[t] + config.discount * cont[t + 1] * mixed
            row.insert(0, running)
        returns.append(row)
        product, row = 1.0, []
        for t in range(len(reward)):
            product *= config.discount * cont[t]
            row.append(product)
        weights.append(row)
    return values, returns, weights


def cross_entropy(module, logits, target):
    bins = module.bins
    points = torch.linspace(-3.0, 3.0, bins.num_bins, dtype=torch.float64)
    points = torch.sign(points) * torch.expm1(points.abs())
    probs = torch.zeros(bins.num_bins, dtype=torch.float64)
    index = min(max(int((points <= target).sum()) - 1, 0), bins.num_bins - 2)
    target = min(max(target, float(points[0])), float(points[-1]))
    share = (target - float(points[index])) / float(points[index + 1] - points[index])
    probs[index], probs[index + 1] = 1.0 - share, share
    return -(probs * torch.log_softmax(logits, -1)).sum()


def test_the_losses_are_those_of_the_equations():
    module, imagined = make(), rollout()
    values, returns, weights = numbers(module, imagined)
    flat = sorted(x for row in returns for x in row)

    def at(share):
        place = share * (len(flat) - 1)
        low = int(place)
        return flat[low] + (place - low) * (flat[low + 1] - flat[low])

    scale = max(1.0, 0.01 * (at(0.95) - at(0.05)))
    slow = module.bins.decode(module.slow_critic(imagined.features))
    actor, critic = [], []
    for n, row in enumerate(returns):
        for t, target in enumerate(row):
            features = imagined.features[n, t]
            probs = 0.99 * torch.softmax(module.actor.network(features), -1) + 0.005
            log_prob = torch.log(probs[int(imagined.action[n, t].argmax())])
            entropy = -(probs * torch.log(probs)).sum()
            gain = log_prob * (target - values[n][t]) / scale + 3e-4 * entropy
            actor.append(-weights[n][t] * gain)
            logits = module.critic(features)
            both = cross_entropy(module, logits, target)
            both = both + cross_entropy(module, logits, float(slow[n, t]))
            critic.append(weights[n][t] * both)

    losses = module.losses(imagined)

    torch.testing.assert_close(losses.actor, torch.stack(actor).mean(), **EXACT)
    torch.testing.assert_close(losses.critic, torch.stack(critic).mean(), **EXACT)


def test_the_range_of_returns_follows_both_percentiles_from_zero():
    module, imagined = make(), rollout()
    returns = torch.tensor(numbers(module, imagined)[1], dtype=torch.float64)
    ends = torch.tensor([0.05, 0.95], dtype=torch.float64)
    low, high = torch.quantile(returns.flatten(), ends)

    module.losses(imagined)
    module.losses(imagined)

    share = 1.0 - 0.99**2
    assert module.low.item() == pytest.approx(share * float(low), rel=1e-9)
    assert module.high.item() == pytest.approx(share * float(high), rel=1e-9)


def test_the_advantage_is_not_scaled_up():
    """A range below one counts as one."""
    module, imagined = make(), rollout()

    metrics = module.losses(imagined._replace(reward=imagined.reward * 1e-3)).metrics

    assert float(metrics["train/return_range"]) == 1.0


def test_the_actor_loss_moves_the_actor_alone_and_the_critic_loss_the_critic():
    module, imagined = make(), rollout()
    losses = module.losses(imagined)

    weights = [module.actor.network.weight, module.critic.weight]
    by_actor = torch.autograd.grad(losses.actor, weights, allow_unused=True, retain_graph=True)
    by_critic = torch.autograd.grad(losses.critic, weights, allow_unused=True)

    assert by_actor[0] is not None
    assert by_actor[1] is None
    assert by_critic[0] is None
    assert by_critic[1] is not None
    assert not module.slow_critic.weight.requires_grad


def test_uniform_weighting_counts_every_step_alike():
    config = ActorCriticConfig(discount=0.9, weighting="uniform")
    module, imagined = make(config), rollout()
    _, returns, _ = numbers(module, imagined)
    slow = module.bins.decode(module.slow_critic(imagined.features))
    expected = [
        cross_entropy(module, module.critic(imagined.features[n, t]), target)
        + cross_entropy(module, module.critic(imagined.features[n, t]), float(slow[n, t]))
        for n, row in enumerate(returns)
        for t, target in enumerate(row)
    ]

    torch.testing.assert_close(
        module.losses(imagined).critic, torch.stack(expected).mean(), **EXACT
    )


def test_a_second_target_is_the_return_that_the_slow_critic_gives():
    config = ActorCriticConfig(discount=0.9, weighting="uniform", slow_critic="second_target")
    module, imagined = make(config), rollout()
    _, returns, _ = numbers(module, imagined)
    _, slow_returns, _ = numbers(module, imagined, module.slow_critic)
    expected = [
        cross_entropy(module, module.critic(imagined.features[n, t]), target)
        + cross_entropy(module, module.critic(imagined.features[n, t]), slow_returns[n][t])
        for n, row in enumerate(returns)
        for t, target in enumerate(row)
    ]

    torch.testing.assert_close(
        module.losses(imagined).critic, torch.stack(expected).mean(), **EXACT
    )


def replayed(last=None):
    g = torch.Generator().manual_seed(5)
    is_last = torch.zeros(1, 4, dtype=torch.bool)
    if last is not None:
        is_last[0, last] = True
    return Replayed(
        features=torch.randn(1, 4, SIZE, dtype=torch.float64, generator=g),
        reward=torch.randn(1, 3, dtype=torch.float64, generator=g),
        terminated=torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64),
        is_last=is_last,
    )


@pytest.mark.parametrize("last", [None, 2])
def test_the_replay_loss_is_bootstrapped_with_imagined_returns(last):
    config = ActorCriticConfig(discount=0.9, replay_coef=0.3)
    module, imagined, record = make(config), rollout(), replayed(last)
    boot = [row[0] for row in numbers(module, imagined)[1]]
    reward, ended = record.reward[0].tolist(), record.terminated[0].tolist()
    running, targets = boot[3], [0.0] * 3
    for t in (2, 1, 0):
        lambda_ = 0.0 if last == t + 1 else 0.95
        mixed = (1.0 - lambda_) * boot[t + 1] + lambda_ * running
        running = reward[t] + 0.9 * (1.0 - ended[t]) * mixed
        targets[t] = running
    slow = module.bins.decode(module.slow_critic(record.features))[0]
    logits = module.critic(record.features)[0]
    rows = [
        cross_entropy(module, logits[t], targets[t])
        + cross_entropy(module, logits[t], float(slow[t]))
        for t in range(3)
        if t != last
    ]

    metrics = module.losses(imagined, record).metrics

    assert float(metrics["train/replay_critic_loss"]) == pytest.approx(
        torch.stack(rows).sum().item() / 3.0, rel=1e-9
    )


def test_the_slow_critic_moves_by_its_rate():
    module = make()
    before, goal = module.slow_critic.weight.clone(), module.critic.weight.detach()

    module.update_slow_critic()

    torch.testing.assert_close(module.slow_critic.weight, before + 0.02 * (goal - before), **EXACT)


def test_both_kinds_of_bins_serve_as_a_critic():
    for bins in (SymexpTwoHot(num_bins=11, limit=3.0), TwoHot(num_bins=11, low=-3.0, high=3.0)):
        assert make(bins=bins).losses(rollout()).critic.isfinite()


def test_the_categorical_policy_agrees_with_torch():
    actor = CategoricalActor(4, linear, mix=0.1)
    features = torch.randn(5, SIZE)
    probs = 0.9 * torch.softmax(actor.network(features), -1) + 0.025
    expected = Categorical(probs=probs)

    action = actor.act(features, generator=torch.Generator().manual_seed(0))
    score = actor.score(features, action)

    torch.testing.assert_close(score.log_prob, expected.log_prob(action.argmax(-1)))
    torch.testing.assert_close(score.entropy, expected.entropy())
    assert torch.equal(actor.mode(features).argmax(-1), probs.argmax(-1))
    assert torch.equal(action, actor.act(features, generator=torch.Generator().manual_seed(0)))


def test_the_gaussian_policy_agrees_with_torch_and_keeps_its_bounds():
    actor = GaussianActor(2, linear).double()
    features = 30.0 * torch.randn(50, SIZE, dtype=torch.float64)
    mean, raw = actor.network(features).chunk(2, -1)
    std = 0.1 + 0.9 * torch.sigmoid(raw + 2.0).detach()
    expected = Normal(torch.tanh(mean).detach(), std)

    action = actor.act(features)
    score = actor.score(features, action)

    torch.testing.assert_close(score.log_prob, expected.log_prob(action).sum(-1))
    torch.testing.assert_close(score.entropy, expected.entropy().sum(-1))
    assert float(std.min()) >= 0.1
    assert float(std.max()) <= 1.0


def test_the_action_space_chooses_the_policy():
    assert isinstance(make_actor(Discrete(num=3), linear), CategoricalActor)
    assert isinstance(make_actor(Continuous(dim=3), linear), GaussianActor)


def test_a_learner_clips_once_and_leaves_no_gradient():
    module = nn.Linear(2, 1, bias=False)
    bounded = BoundedOptimizer([module], partial(torch.optim.SGD, lr=1.0), max_grad_norm=1.0)
    start = module.weight.detach().clone()
    module.weight.grad = torch.tensor([[3.0, 4.0]])

    norm = bounded.step(torch.zeros(()), step_allowed=torch.isfinite)

    assert norm.item() == pytest.approx(5.0)
    torch.testing.assert_close(start - module.weight, torch.tensor([[0.6, 0.8]]))
    assert module.weight.grad is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"discount": 1.5}, "discount must lie in"),
        ({"low_percentile": 96.0}, "Percentiles must satisfy"),
        ({"weighting": "even"}, "weighting"),
        ({"slow_critic": "second_target", "replay_coef": 0.3}, "replay_coef=0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        ActorCriticConfig(**settings)


def test_entropy_of_an_even_policy_is_the_logarithm_of_the_choices():
    actor = CategoricalActor(4, linear)
    nn.init.zeros_(actor.network.weight)
    nn.init.zeros_(actor.network.bias)

    score = actor.score(torch.randn(1, SIZE), torch.eye(4)[:1])

    assert score.entropy.item() == pytest.approx(math.log(4.0), rel=1e-6)
