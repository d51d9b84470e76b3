"""EMA and SWA around other optimizers of the registry, whose settings and statistics they keep."""

from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS, make_optimizer, module_groups

SGD = partial(torch.optim.SGD, lr=0.1)


@pytest.fixture(params=["ema", "swa"])
def averaging(request):
    return request.param


def test_the_inner_optimizer_keeps_the_settings_it_was_given(averaging):
    sam = partial(OPTIMIZERS["sam"].build, base=SGD, max_grad_norm=1e-3, on_nonfinite="skip")

    optimizer = make_optimizer(averaging, nn.Linear(2, 1), base=sam)
    replaced = make_optimizer(averaging, nn.Linear(2, 1), base=sam, max_grad_norm=2.0)

    assert (optimizer.inner.max_grad_norm, optimizer.inner.on_nonfinite) == (1e-3, "skip")
    assert (optimizer.max_grad_norm, optimizer.on_nonfinite) == (1e-3, "skip")
    assert (replaced.inner.max_grad_norm, replaced.inner.on_nonfinite) == (2.0, "skip")


def test_settings_reach_the_inner_optimizer_through_an_average_of_averages(averaging):
    inner = partial(OPTIMIZERS["swa"].build, base=partial(OPTIMIZERS["sam"].build, base=SGD))

    optimizer = make_optimizer(averaging, nn.BatchNorm1d(2), base=inner, max_grad_norm=2.0)

    assert optimizer.inner.inner.max_grad_norm == 2.0
    assert len(optimizer.inner.inner._statistics) == 3


@pytest.mark.parametrize("name", ["ivon", "bsam", "wsam"])
def test_an_inner_optimizer_that_refuses_local_refuses_it_here_too(averaging, name):
    base = OPTIMIZERS[name].build
    if OPTIMIZERS[name].has_base:
        base = partial(base, base=SGD)

    with pytest.raises(UserError, match="sync=global"):
        make_optimizer(averaging, nn.Linear(2, 1), base=base, sync="local")


def test_running_statistics_in_compiled_code_move_once_a_step(averaging):
    """Hooks miss layers in compiled code; the inner optimizer has to know their statistics."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), torch.randn(8, 3)
    compiled = torch.compile(lambda x: net(x).square().mean(), backend="eager")
    optimizer = make_optimizer(averaging, net, base=partial(OPTIMIZERS["sam"].build, base=SGD))

    def closure():
        optimizer.zero_grad()
        loss = compiled(x)
        loss.backward()
        return loss.detach()

    optimizer.step(closure)

    assert net[1].num_batches_tracked == 1


def test_statistics_of_a_group_that_is_added_reach_the_inner_optimizer(averaging):
    sam = partial(OPTIMIZERS["sam"].build, base=SGD)
    optimizer = make_optimizer(averaging, nn.Linear(2, 2), base=sam)
    later = nn.BatchNorm1d(2)

    optimizer.add_param_group(module_groups({"later": later})[0])

    assert all(a is b for a, b in zip(optimizer.inner._statistics, later.buffers(), strict=True))


def test_steps_that_others_skipped_stay_counted(averaging):
    """An agent counts those of its policy here too (``mbrl_flat.agents.nonfinite_guard``)."""
    net = nn.Linear(2, 1)
    optimizer = make_optimizer(averaging, net, base=SGD, on_nonfinite="skip")
    counts = []

    for factor in (float("nan"), 1.0):
        optimizer.skipped += 1

        def closure(factor=factor):
            optimizer.zero_grad()
            loss = factor * net(torch.ones(1, 2)).square().mean()
            loss.backward()
            return loss.detach()

        optimizer.step(closure)
        counts.append((optimizer.skipped, optimizer.last["skipped"]))

    assert counts == [(2, 1.0), (3, 0.0)]
