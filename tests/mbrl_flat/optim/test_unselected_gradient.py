"""``unselected_gradient`` and ``clip_scope``: whose gradient is taken, and what bounds it."""

from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim import OPTIMIZERS, make_optimizer
from mbrl_flat.optim.norms import joint_norm

LR, RHO = 0.1, 0.4
H = torch.tensor([[3.0, 1.0, 0.5], [1.0, 2.0, -0.7], [0.5, -0.7, 4.0]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
WITH_CHOICE = sorted(n for n in OPTIMIZERS if "unselected_gradient" in OPTIMIZERS[n].settings)


def quadratic():
    """Parameters ``model`` (two entries) and ``heads`` (one), and the closure of ``w' H w / 2``."""
    model, heads = nn.Parameter(START[:2].clone()), nn.Parameter(START[2:].clone())

    def closure():
        model.grad = heads.grad = None
        w = torch.cat([model, heads])
        loss = 0.5 * w @ H @ w
        loss.backward()
        return loss.detach()

    groups = [
        {"params": [model], "flat_name": "model"},
        {"params": [heads], "flat_name": "heads"},
    ]
    return groups, closure, lambda: torch.cat([model, heads]).detach()


def make(groups, name="sam", **settings):
    settings = {"only": ["model"], "rho": RHO, **settings}
    return make_optimizer(name, groups, base=partial(torch.optim.SGD, lr=LR), **settings)


@pytest.mark.parametrize("choice", ["perturbed", "clean"])
def test_sam_on_a_part_takes_the_gradient_of_the_rest_where_it_is_told(choice):
    groups, closure, values = quadratic()
    g = H @ START
    there = START.clone()
    there[:2] += RHO * g[:2] / g[:2].norm()
    expected = H @ there
    if choice == "clean":
        expected[2:] = g[2:]

    make(groups, unselected_gradient=choice).step(closure)

    torch.testing.assert_close(values(), START - LR * expected, rtol=1e-12, atol=0)


def test_gsam_combines_gradients_of_the_selected_alone():
    groups, closure, values = quadratic()
    g = H @ START
    there = START.clone()
    there[:2] += RHO * g[:2] / g[:2].norm()
    a, b = g[:2], (H @ there)[:2]
    across = a - (a @ b) / (b @ b) * b

    make(groups, "gsam", alpha=0.4, unselected_gradient="clean").step(closure)

    expected = torch.cat([b - 0.4 * across, g[2:]])
    torch.testing.assert_close(values(), START - LR * expected, rtol=1e-12, atol=0)


def test_a_loop_without_a_closure_makes_the_same_step():
    groups, closure, values = quadratic()
    other_groups, other_closure, other_values = quadratic()
    optimizer = make(groups, unselected_gradient="clean")
    make(other_groups, unselected_gradient="clean").step(other_closure)

    with torch.enable_grad():
        closure()
    optimizer.first_step()
    with torch.enable_grad():
        closure()
    optimizer.second_step()

    assert torch.equal(values(), other_values())


@pytest.mark.parametrize("name", WITH_CHOICE)
def test_every_method_trains_a_clean_head_as_its_base_alone_does(name, new_problem):
    problem, plain = new_problem(), new_problem()
    base = partial(torch.optim.SGD, lr=LR)
    settings = {"only": ["encoder"], "unselected_gradient": "clean", "base": base}
    if name == "sam_on":
        settings["layers"] = "other"
    optimizer = make_optimizer(name, problem.groups(), **settings)
    reference = make_optimizer("sgd", plain.groups(), lr=LR)

    torch.manual_seed(3)
    optimizer.step(problem.closure)
    torch.manual_seed(3)
    reference.step(plain.closure)

    assert problem.calls > plain.calls
    assert all(map(torch.equal, problem.net.head.parameters(), plain.net.head.parameters()))


def test_a_clean_gradient_of_half_a_batch_is_refused():
    with pytest.raises(UserError, match="ascent_precision and ascent_fraction do not apply"):
        make(quadratic()[0], unselected_gradient="clean", ascent_fraction=0.5)


def test_another_word_is_refused_with_the_words_there_are():
    with pytest.raises(UnknownNameError, match=r"did you mean .clean"):
        make(quadratic()[0], unselected_gradient="klean")


@pytest.mark.parametrize("scope", ["joint", "module"])
def test_gradients_are_clipped_jointly_or_by_module(scope):
    groups, closure, values = quadratic()
    g = H @ START
    optimizer = make_optimizer("sgd", groups, lr=LR, max_grad_norm=0.5, clip_scope=scope)
    parts = [g] if scope == "joint" else [g[:2], g[2:]]
    expected = torch.cat([part * 0.5 / (part.norm() + 1e-6) for part in parts])

    optimizer.step(closure)

    torch.testing.assert_close(values(), START - LR * expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(optimizer.last["grad_norm"], joint_norm([g]))


def test_wsam_whose_sharpness_goes_past_the_base_refuses_bounds_by_module():
    with pytest.raises(UserError, match="clip_scope=joint"):
        make(quadratic()[0], "wsam", clip_scope="module")
