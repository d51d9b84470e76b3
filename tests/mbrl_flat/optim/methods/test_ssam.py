"""Sparse SAM against its equations on quadratics, in float64."""

import pytest
import torch

from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, H, close, grad, one_step


def test_only_the_entries_with_the_largest_squared_gradient_are_perturbed(quadratic):
    """g = (1, -3): half of the entries is the second one; the norm is that of both."""
    g = grad(START)
    shift = torch.stack([torch.zeros_like(g[0]), 0.3 * g[1] / g.norm()])

    result = one_step(quadratic, "ssam", rho=0.3, sparsity=0.5)

    close(result, START - LR * grad(START + shift))


def test_without_sparsity_it_is_sam(quadratic):
    results = [
        one_step(quadratic, "ssam", rho=0.3, sparsity=0.0, steps=3, refresh=2),
        one_step(quadratic, "sam", rho=0.3, steps=3),
    ]

    close(*results)


def mask_steps(optimizer, closure, param, steps):
    """Steps, counted from those made before, after which there is another mask."""
    changed, before = [], None
    for _ in range(steps):
        step = optimizer.steps
        optimizer.step(closure)
        mask = optimizer.method_state[param]["mask"]
        if mask is not before:
            changed.append(step)
        before = mask
    return changed


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [0, 10, 20, 30]), (3, [0, 12, 24, 36]), (7, [0, 14, 28])]
)
def test_the_mask_is_made_anew_as_soon_as_refresh_steps_have_passed(quadratic, every, expected):
    param, closure = quadratic(H, START)
    optimizer = make_optimizer(
        "ssam", [param], base="sgd", lr=0.01, every=every, refresh=10, sparsity=0.5
    )

    assert mask_steps(optimizer, closure, param, expected[-1] + 2) == expected


def test_the_step_of_the_mask_is_saved(quadratic):
    param, closure = quadratic(H, START)
    settings = {"base": "sgd", "lr": 0.01, "every": 3, "refresh": 10}
    optimizer = make_optimizer("ssam", [param], **settings)
    mask_steps(optimizer, closure, param, 20)
    again = make_optimizer("ssam", [param], **settings)

    again.load_state_dict(optimizer.state_dict())

    # The first entry is only that of a mask seen for the first time.
    assert mask_steps(again, closure, param, 10)[1:] == [24]


def test_a_state_without_the_step_of_the_mask_goes_on_at_the_next_multiple(quadratic):
    param, closure = quadratic(H, START)
    settings = {"base": "sgd", "lr": 0.01, "refresh": 10}
    optimizer = make_optimizer("ssam", [param], **settings)
    mask_steps(optimizer, closure, param, 15)
    state = optimizer.state_dict()
    del state["perturbation"]["memory"][0]["masked_at"]
    again = make_optimizer("ssam", [param], **settings)

    again.load_state_dict(state)

    assert mask_steps(again, closure, param, 20)[1:] == [20, 30]
