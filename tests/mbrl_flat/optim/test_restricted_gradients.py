"""Gradients that nobody reads are not formed, unless the closure cannot do without them."""

import random
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mbrl_flat.optim import make_optimizer, module_groups


class Pair:
    """Two layers, the first with BatchNorm, and closures that use one, the other or both."""

    def __init__(self):
        torch.manual_seed(0)
        self.a = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
        self.b = nn.Linear(3, 1).double()
        self.outside = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.x = torch.randn(8, 3, dtype=torch.float64)
        self.draws = []

    def groups(self):
        return module_groups({"a": self.a, "b": self.b})

    def values(self):
        return [p.detach().clone() for p in (*self.a.parameters(), *self.b.parameters())]

    def zero(self):
        self.draws.append((float(torch.rand(())), random.random()))
        for param in (*self.a.parameters(), *self.b.parameters(), self.outside):
            param.grad = None

    def of_a_alone(self):
        self.zero()
        loss = (self.a(self.x) - 1.0).square().mean()
        loss.backward()
        return loss.detach()

    def through_something_else(self):
        self.zero()
        loss = (self.outside * self.a(self.x) - 1.0).square().mean()
        loss.backward()
        return loss.detach()

    def of_each(self):
        """As actor and critic have it: two losses, two calls of backward."""
        self.zero()
        hidden = self.a(self.x)
        first = (hidden - 1.0).square().mean()
        first.backward()
        second = (self.b(hidden.detach()) - 1.0).square().mean()
        second.backward()
        return (first + second).detach()

    def by_autograd(self):
        self.zero()
        params = [*self.a.parameters(), *self.b.parameters()]
        loss = (self.b(self.a(self.x)) - 1.0).square().mean()
        for param, grad in zip(params, torch.autograd.grad(loss, params), strict=True):
            param.grad = grad
        return loss.detach()


@pytest.mark.parametrize("name", ["of_a_alone", "through_something_else"])
def test_a_loss_of_nothing_that_was_selected_makes_a_plain_step(name):
    perturbing, plain = Pair(), Pair()
    sam = make_optimizer("sam", perturbing.groups(), base="sgd", lr=0.1, only=["b"])
    sgd = make_optimizer("sgd", plain.groups(), lr=0.1)

    losses = [sam.step(getattr(perturbing, name)), sgd.step(getattr(plain, name))]

    assert torch.equal(*losses)
    for a, b in zip(perturbing.values(), plain.values(), strict=True):
        assert torch.equal(a, b)
    assert all(param.requires_grad for param in perturbing.b.parameters())


@pytest.mark.parametrize("name", ["of_each", "by_autograd"])
def test_a_closure_that_needs_every_gradient_steps_as_if_none_were_skipped(name):
    """With ``same_rng``, one more evaluation leaves streams and statistics where two do."""
    restricted, whole = Pair(), Pair()
    sam = make_optimizer("sam", restricted.groups(), base="sgd", lr=0.1, rho=0.1, only=["a"])
    other = make_optimizer("sam", whole.groups(), base="sgd", lr=0.1, rho=0.1, only=["a"])
    other._restricts = False
    ends = []

    for pair, optimizer in ((restricted, sam), (whole, other)):
        torch.manual_seed(3)
        random.seed(3)
        optimizer.step(getattr(pair, name))
        evaluations = [optimizer.last["evaluations"]]
        optimizer.step(getattr(pair, name))
        evaluations.append(optimizer.last["evaluations"])
        ends.append((evaluations, float(torch.rand(())), random.random()))

    assert ends[0][1:] == ends[1][1:]
    assert ends[0][0] == [3.0, 2.0]
    assert ends[1][0] == [2.0, 2.0]
    assert len(set(restricted.draws[:3])) == 1
    for a, b in zip(restricted.values(), whole.values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(restricted.a.buffers(), whole.a.buffers(), strict=True):
        assert torch.equal(a, b)


def test_an_attempt_that_was_undone_moves_no_stream_without_same_rng_either():
    pair, optimizers = Pair(), []
    for restricts in (True, False):
        optimizer = make_optimizer("sam", pair.groups(), base="sgd", lr=0.0, only=["a"])
        optimizer.same_rng, optimizer._restricts = False, restricts
        optimizers.append(optimizer)
    draws = []

    for optimizer in optimizers:
        torch.manual_seed(3)
        random.seed(3)
        pair.draws = []
        optimizer.step(pair.of_each)
        draws.append(pair.draws[-2:])

    assert draws[0] == draws[1]


def test_esam_steps_on_whatever_tensors_chance_chooses():
    pair = Pair()
    optimizer = make_optimizer("esam", pair.groups(), base="sgd", lr=0.01)
    evaluations = []

    for _ in range(20):
        optimizer.step(pair.of_each)
        evaluations.append(optimizer.last["evaluations"])

    assert evaluations.count(3.0) == 1
    assert pair.a[1].num_batches_tracked == 20


def test_a_resumed_run_does_not_try_again():
    pair = Pair()
    optimizer = make_optimizer("sam", pair.groups(), base="sgd", lr=0.1, only=["a"])
    optimizer.step(pair.of_each)
    again = make_optimizer("sam", pair.groups(), base="sgd", lr=0.1, only=["a"])

    again.load_state_dict(optimizer.state_dict())
    again.step(pair.of_each)

    assert again.last["evaluations"] == 2.0


def test_a_closure_that_fails_for_another_reason_is_called_once():
    pair, calls = Pair(), []
    optimizer = make_optimizer("sam", pair.groups(), base="sgd", lr=0.1, only=["a"])

    def closure():
        calls.append(1)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(closure)

    assert calls == [1]
    assert all(param.requires_grad for param in pair.b.parameters())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_checkpoint_that_drops_chosen_gradients_costs_one_more_evaluation_once():
    """A re-entrant checkpoint gives its parameters no gradient if its input takes none."""

    def train(*, reentrant):
        torch.manual_seed(0)
        encoder, block, head = (nn.Linear(3, 3).double() for _ in range(3))
        x = torch.randn(8, 3, dtype=torch.float64)
        optimizer = make_optimizer(
            "sam",
            module_groups({"encoder": encoder, "block": block, "head": head}),
            base=partial(torch.optim.SGD, lr=0.1),
            rho=0.5,
            only=["block", "head"],
        )

        def closure():
            optimizer.zero_grad()
            hidden = checkpoint(block, encoder(x).tanh(), use_reentrant=reentrant)
            assert isinstance(hidden, torch.Tensor)
            loss = head(hidden).square().mean()
            loss.backward()
            return loss.detach()

        counts = []
        for _ in range(2):
            optimizer.step(closure)
            counts.append(optimizer.last["evaluations"])
        return counts, [p.detach() for p in (*encoder.parameters(), *block.parameters())]

    (counts, weights), (plain, expected) = train(reentrant=True), train(reentrant=False)

    assert (counts, plain) == ([3.0, 2.0], [2.0, 2.0])
    for a, b in zip(weights, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
