"""States of something else, which are refused before anything is changed."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS, make_optimizer

PAIRS = [("sam", "vasso"), ("adam", "sam"), ("sam", "adam"), ("ivon", "sam"), ("ema", "swa")]


def net(width=2):
    torch.manual_seed(0)
    return nn.Linear(2, width)


def stepped(name, module, **settings):
    optimizer = make_optimizer(name, module, **settings)

    def closure():
        optimizer.zero_grad()
        loss = module(torch.ones(4, 2)).square().mean()
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    return optimizer


def as_of_earlier_revisions(state):
    state = {"base": state["base"], "perturbation": dict(state["perturbation"])}
    for entry in ("generator_device", "restricts"):
        state["perturbation"].pop(entry, None)
    return state


def assert_refused(optimizer, state, match):
    before = copy.deepcopy(optimizer.state_dict())

    with pytest.raises(UserError, match=match):
        optimizer.load_state_dict(state)

    assert str(optimizer.state_dict()) == str(before)


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_the_state_of_another_method_is_refused(name, other):
    state = stepped(other, net()).state_dict()

    assert_refused(stepped(name, net()), state, f"not the state of {name} on .* of {other} on")


def test_the_state_of_the_same_method_on_another_base_is_refused():
    state = stepped("sam", net(), base="sgd").state_dict()

    assert_refused(stepped("sam", net()), state, "not the state of sam on Adam but .* sam on SGD")


def test_the_state_of_an_average_of_another_method_is_refused():
    sam, vasso = (partial(OPTIMIZERS[n].build, base=torch.optim.Adam) for n in ("sam", "vasso"))
    state = stepped("ema", net(), base=vasso).state_dict()

    assert_refused(stepped("ema", net(), base=sam), state, "ema on sam on Adam .* ema on vasso on")


def test_a_state_for_parameters_of_other_shapes_is_refused():
    state = stepped("sam", net(3)).state_dict()

    assert_refused(stepped("sam", net()), state, r"for these parameters: .*\[\[\[3, 2\], \[3\]\]\]")


@pytest.mark.parametrize(("name", "other"), [("adam", "sam"), ("sam", "adam"), ("adam", "ema")])
def test_a_state_of_an_earlier_revision_with_other_entries_is_refused(name, other):
    state = as_of_earlier_revisions(stepped(other, net()).state_dict())

    assert_refused(stepped(name, net()), state, "not the state")


def test_a_state_of_an_earlier_revision_for_other_parameters_is_refused():
    state = as_of_earlier_revisions(stepped("sam", nn.Linear(2, 2, bias=False)).state_dict())

    assert_refused(stepped("sam", net()), state, "not the state for these parameters")


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_state_of_an_earlier_revision_still_loads(name):
    optimizer = stepped(name, nn.Sequential(net(), nn.LayerNorm(2)))
    again = make_optimizer(name, nn.Sequential(net(), nn.LayerNorm(2)))

    again.load_state_dict(as_of_earlier_revisions(optimizer.state_dict()))

    assert str(again.state_dict()["perturbation"]) == str(optimizer.state_dict()["perturbation"])
