"""A guarded body changes nothing."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from mbrl_flat.diagnostics.guard import preserve_state
from mbrl_flat.runtime.seeding import rng_state


def make_net():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    net[0].requires_grad_(False)
    net[1].eval()
    net(torch.randn(5, 3)).sum().backward()
    return net


def snapshot(net):
    return {
        "state": {name: value.clone() for name, value in net.state_dict().items()},
        "grads": [None if p.grad is None else (p.grad, p.grad.clone()) for p in net.parameters()],
        "requires": [p.requires_grad for p in net.parameters()],
        "modes": [m.training for m in net.modules()],
        "rng": rng_state(),
    }


def assert_same(before, net):
    after = snapshot(net)
    for name, value in before["state"].items():
        assert torch.equal(value, after["state"][name]), name
    for old, new in zip(before["grads"], after["grads"], strict=True):
        assert (old is None) == (new is None)
        if old is not None:
            assert old[0] is new[0]
            assert torch.equal(old[1], new[1])
    assert before["requires"] == after["requires"]
    assert before["modes"] == after["modes"]
    assert before["rng"]["python"] == after["rng"]["python"]
    assert torch.equal(before["rng"]["torch"], after["rng"]["torch"])
    assert torch.equal(before["rng"]["numpy"][1], after["rng"]["numpy"][1])
    assert before["rng"]["numpy"][2] == after["rng"]["numpy"][2]


def disturb(net):
    net.train()
    net.requires_grad_(True)
    net(torch.randn(5, 3)).sum().backward()
    torch.optim.SGD(net.parameters(), lr=1.0).step()
    random.random()
    np.random.random()  # noqa: NPY002


def disturb_and_fail(net):
    disturb(net)
    raise KeyError("body")


def test_weights_statistics_gradients_modes_and_streams_come_back():
    net = make_net()
    before = snapshot(net)

    with preserve_state(net):
        disturb(net)

    assert_same(before, net)


def test_they_come_back_when_the_body_raises():
    net = make_net()
    before = snapshot(net)

    with pytest.raises(KeyError, match="body"), preserve_state(net):
        disturb_and_fail(net)

    assert_same(before, net)


def test_bare_parameters_come_back_as_well():
    net = make_net()
    before = snapshot(net)

    with preserve_state(params=net[3].parameters()):
        net[3].requires_grad_(False)
        with torch.no_grad():
            net[3].weight.add_(1.0)

    assert_same(before, net)


def test_the_body_sees_no_gradients():
    net = make_net()

    with preserve_state(net):
        assert all(p.grad is None for p in net.parameters())
