"""State that a module keeps in plain attributes moves once a step, as buffers do."""

from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from mbrl_flat.optim import ESAM, GSAM, SAM
from mbrl_flat.optim.snapshots import frozen_statistics

X = torch.arange(12.0).reshape(4, 3)


class Counting(nn.Module):
    """Counts its forward passes in attributes of every kind."""

    def __init__(self):
        super().__init__()
        self.number, self.fraction, self.seen = 0, 0.0, None
        self.tensor, self.rebound = torch.zeros(2), torch.zeros(2)
        self.array, self.pair = np.zeros(2), (torch.zeros(2), 0)
        self.listed, self.log = [torch.zeros(2), 0], []
        self.window, self.steps = deque(maxlen=9), set()
        self.named = {"a": torch.zeros(2), "b": {"c": 0, "d": [torch.zeros(2)]}}
        self.running = nn.Parameter(torch.zeros(2), requires_grad=False)

    @torch.no_grad()
    def forward(self, x):
        self.number += 1
        self.fraction += 0.5
        self.seen = self.number
        self.tensor += 1.0
        self.rebound = self.rebound + 1.0
        self.array += 1.0
        self.pair = (self.pair[0] + 1.0, self.pair[1] + 1)
        self.listed[0].data += 1.0
        self.listed[1] += 1
        self.log.append(self.number)
        self.window.append(self.number)
        self.steps.add(self.number)
        self.named["a"] = self.named["a"] + 1.0
        self.named["b"]["c"] += 1
        self.named["b"]["d"][0] += 1.0
        return x

    def counts(self):
        """Every count; all are equal if all moved together."""
        tensors = [self.tensor, self.rebound, self.pair[0], self.listed[0], self.named["a"]]
        tensors += [*self.named["b"]["d"], torch.from_numpy(self.array)]
        numbers = [self.number, 2 * self.fraction, self.seen, self.pair[1], self.listed[1]]
        numbers += [self.named["b"]["c"], len(self.log), len(self.window), len(self.steps)]
        return {float(n) for n in numbers} | {float(t[0]) for t in tensors}


@pytest.mark.parametrize(
    "method",
    [SAM, partial(SAM, only=["0"]), partial(ESAM, beta=0.5), GSAM],
)
def test_attributes_of_every_kind_move_once_a_step(method):
    net = nn.Sequential(nn.Linear(3, 4), Counting(), nn.Linear(4, 1))
    tensor = net[1].tensor
    optimizer = method(net)

    def closure():
        optimizer.zero_grad()
        loss = net(X).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)

    assert net[1].counts() == {3.0}
    assert net[1].log == [1, 2, 3]
    assert net[1].tensor is tensor


def test_a_hidden_state_with_its_graph_is_left_as_the_first_pass_left_it():
    """A recurrent module that remembers the state of its last sequence."""

    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.hidden = nn.GRUCell(3, 4), torch.zeros(4, 4)

        def forward(self, x):
            self.hidden = self.cell(x, self.hidden.detach())
            return self.hidden

    torch.manual_seed(0)
    net = Remembering()
    optimizer = SAM(net, base="sgd", lr=0.0, rho=0.1)

    def closure():
        optimizer.zero_grad()
        loss = net(X).square().mean()
        loss.backward()
        return loss

    expected = net.cell(X, torch.zeros(4, 4)).detach()
    optimizer.step(closure)

    torch.testing.assert_close(net.hidden.detach(), expected, rtol=0.0, atol=0.0)


def test_what_is_no_plain_state_is_left_alone():
    """Layers made on first use, containers that hold themselves, large ones, other objects."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.loop, self.large, self.iterator = [], list(range(2000)), iter(range(10))
            self.loop.append(self.loop)
            self.fixed = np.broadcast_to(np.zeros(1), (3,))

        def forward(self, x):
            self.large.append(next(self.iterator))
            self.fresh = 1
            return x

    layer = Odd()
    with frozen_statistics():
        layer(X)

    assert (len(layer.large), layer.loop[0] is layer.loop, layer.fresh) == (2001, True, 1)


def test_containers_of_another_package_keep_what_is_done_to_them():
    class Frozen(dict):
        """As the configuration of a module of diffusers."""

        def update(self, *args, **kwargs):
            raise TypeError("frozen")

    class Configured(nn.Linear):
        def __init__(self):
            super().__init__(3, 1)
            self.config, self.calls = Frozen(a=1), 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    net = Configured()
    optimizer = SAM(net)

    def closure():
        optimizer.zero_grad()
        loss = net(X).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)

    assert net.config == {"a": 1}
    assert net.calls == 1


def test_a_layer_that_is_made_at_its_first_use_stays():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = self.scale = None

        def forward(self, x):
            if self.layer is None:
                self.layer = nn.Linear(x.shape[-1], 1)
                self.scale = nn.Parameter(torch.ones(1))
            return self.scale * self.layer(x)

    model = Late()
    with frozen_statistics():
        first = model(X)
    assert torch.equal(model(X), first)
    assert "layer" not in vars(model)
    assert len(list(model.parameters())) == 3
