"""What every optimizer of the registry does when something is missing, frozen or not finite."""

from functools import partial

import pytest
import torch

from mbrl_flat.errors import NonFiniteError, UserError
from mbrl_flat.optim import OPTIMIZERS, evaluation_params

NAMES = sorted(OPTIMIZERS)
WITH_ONLY = [name for name in NAMES if "only" in OPTIMIZERS[name].settings]
WITH_RHO = [name for name in NAMES if "rho" in OPTIMIZERS[name].settings]


@pytest.mark.parametrize(
    ("name", "call"),
    [(name, 0) for name in NAMES]
    # The second evaluation of those that make two in every step.
    + [(name, 1) for name in NAMES if OPTIMIZERS[name].evaluations >= 2],
)
def test_weights_come_back_when_the_closure_raises(problem, make, unmoved, name, call):
    optimizer = make(name, problem.groups())
    optimizer.step(problem.closure)
    before, pointers = problem.values(), [p.data_ptr() for p in problem.params()]
    # Aligned with a step that evaluates as often as the first.
    while optimizer.last["evaluations"] <= call:
        optimizer.step(problem.closure)
        before = problem.values()
    problem.fail_at = problem.calls + call

    with pytest.raises(RuntimeError, match="the closure fails"):
        optimizer.step(problem.closure)

    assert unmoved(name, problem.values(), before)
    assert [p.data_ptr() for p in problem.params()] == pointers


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("call", [0, 1])
def test_a_gradient_missing_in_one_evaluation_leaves_nothing_perturbed(
    problem, make, unmoved, name, call
):
    optimizer = make(name, problem.groups(), **_still(name))
    head = list(problem.net.head.parameters())
    before = problem.values()
    problem.unused_at = {call: head}

    optimizer.step(problem.closure)
    optimizer.step(problem.closure)

    assert unmoved(name, problem.values(), before)


def _still(name):
    """Settings with which a step cannot move the weights."""
    if OPTIMIZERS[name].has_base:
        return {"base": partial(torch.optim.SGD, lr=0.0, momentum=0.9)}
    return {"lr": 0.0}


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"sam_on", "functional_sam"}))
def test_a_parameter_without_entries_changes_nothing(make, name):
    """Such as a head for no classes; the two that are left out look at layers, not at weights."""
    results = []
    for empty in ([], [torch.nn.Parameter(torch.zeros(0, 3, dtype=torch.float64))]):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64))
        optimizer = make(name, [*empty, weight])

        def closure(weight=weight, empty=tuple(empty), optimizer=optimizer):
            optimizer.zero_grad()
            loss = weight.square().sum().sin() + sum(part.sum() for part in empty)
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        results.append(weight.detach())
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters_neither_move_nor_are_perturbed(problem, make, name):
    optimizer = make(name, problem.groups())
    frozen = [problem.net.encoder.weight, problem.net.norm.bias]
    for param in frozen:
        param.requires_grad_(False)
    at = [[p is f for p in problem.params()].index(True) for f in frozen]
    before = problem.values()

    for _ in range(3):
        optimizer.step(problem.closure)

    for values in [*problem.points, problem.values()]:
        assert all(torch.equal(values[i], before[i]) for i in at)
    assert not torch.equal(problem.values()[-1], before[-1])
    assert not any(f.requires_grad for f in frozen)


@pytest.mark.parametrize("name", WITH_ONLY)
def test_a_selection_without_a_gradient_leaves_the_step_to_the_base(problem, make, name):
    problem.net.head.requires_grad_(False)
    optimizer = make(name, problem.groups(), only=["head"])
    before = problem.values()

    optimizer.step(problem.closure)

    assert not torch.equal(problem.values()[0], before[0])


@pytest.mark.parametrize("name", WITH_ONLY)
@pytest.mark.parametrize("only", [[], "head", ["haed"]])
def test_a_selection_that_names_nothing_is_refused(problem, make, name, only):
    with pytest.raises(UserError, match=r"only|did you mean 'head'"):
        make(name, problem.groups(), only=only)


@pytest.mark.parametrize("name", WITH_RHO)
@pytest.mark.parametrize("rho", [-0.1, float("nan")])
def test_a_radius_below_zero_is_refused(problem, make, name, rho):
    with pytest.raises(UserError, match="rho"):
        make(name, problem.groups(), rho=rho)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_is_not_finite_raises_and_leaves_the_weights(problem, make, unmoved, name):
    optimizer = make(name, problem.groups())
    optimizer.step(problem.closure)
    before = problem.values()
    problem.nan_at = problem.calls

    with pytest.raises(NonFiniteError, match="nan"):
        optimizer.step(problem.closure)

    assert unmoved(name, problem.values(), before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("call", [0, 1])
def test_a_skipped_step_changes_no_weight_and_pollutes_no_memory(
    problem, make, unmoved, name, call
):
    optimizer = make(name, problem.groups(), on_nonfinite="skip")
    optimizer.step(problem.closure)
    before, calls = problem.values(), problem.calls
    problem.nan_at = problem.calls + call

    while problem.calls <= problem.nan_at:
        before = problem.values()
        optimizer.step(problem.closure)

    assert unmoved(name, problem.values(), before)
    assert optimizer.last["skipped"] == 1.0
    for _ in range(3):
        optimizer.step(problem.closure)
    assert all(torch.isfinite(v).all() for v in problem.values())
    assert not torch.equal(problem.values()[-1], before[-1])
    assert problem.calls > calls


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_params_give_the_weights_back_when_the_body_raises(problem, make, name):
    optimizer = make(name, problem.groups())
    optimizer.step(problem.closure)
    before = problem.values()

    with pytest.raises(KeyError), evaluation_params(optimizer):
        raise KeyError

    assert all(torch.equal(a, b) for a, b in zip(problem.values(), before, strict=True))
