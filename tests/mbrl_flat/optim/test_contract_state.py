"""State of every optimizer of the registry: saved, loaded, copied, grown."""

import copy
import io
import pickle
from functools import partial

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS
from mbrl_flat.optim.base import joint_norm
from mbrl_flat.runs.resume import METHOD_SCALES

NAMES = sorted(OPTIMIZERS)
WITH_RHO = [n for n in NAMES if "rho" in OPTIMIZERS[n].settings and OPTIMIZERS[n].has_base]


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def run(problem, optimizer, steps):
    for step in range(steps):
        torch.manual_seed(100 + step)
        optimizer.step(problem.closure)
    return [*problem.values(), *[b.clone() for b in problem.net.buffers()]]


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(new_problem, make, name):
    whole, half = new_problem(), new_problem()
    long = make(name, whole.groups())
    first = make(name, half.groups())
    run(whole, long, 7)
    run(half, first, 7)
    state = through_a_file(first.state_dict())
    weights = through_a_file(half.net.state_dict())
    torch.manual_seed(9)
    other = new_problem(seed=0)
    other.net.load_state_dict(weights)
    second = make(name, other.groups())

    second.load_state_dict(state)

    for a, b in zip(run(other, second, 6), run(whole, long, 6), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        (name, scale)
        for name in NAMES
        for scale in METHOD_SCALES
        if scale in OPTIMIZERS[name].settings
        and (name, scale) != ("esam", "gamma")  # below 1 it needs another closure
    ],
)
def test_a_setting_that_may_change_on_resume_acts_as_if_it_had_been_set_then(
    new_problem, make, name, scale
):
    old = OPTIMIZERS[name].settings[scale]
    new = old + 1 if scale == "every" else 0.5 * old
    changed, other = new_problem(), new_problem()
    first = make(name, changed.groups())
    run(changed, first, 3)
    state = through_a_file(first.state_dict())
    other.net.load_state_dict(through_a_file(changed.net.state_dict()))
    second = make(name, other.groups(), **{scale: new})

    second.load_state_dict(state)
    setattr(first, scale, new)

    for a, b in zip(run(other, second, 9), run(changed, first, 9), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_loading_copies_the_state_and_never_shares_it(problem, make, name):
    optimizer = make(name, problem.groups())
    run(problem, optimizer, 3)
    state = optimizer.state_dict()
    before = copy.deepcopy(state)

    optimizer.load_state_dict(state)
    run(problem, optimizer, 3)

    assert _equal(through_a_file(before)["perturbation"], state["perturbation"])


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_something_else_is_refused(problem, make, name):
    optimizer = make(name, problem.groups())

    with pytest.raises(UserError, match="not the state"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})


@pytest.mark.parametrize("name", NAMES)
def test_a_deep_copy_goes_on_by_itself(problem, make, name):
    optimizer = make(name, problem.groups())
    run(problem, optimizer, 3)
    before = problem.values()

    twin, pair = copy.deepcopy((problem, optimizer))
    after = run(twin, pair, 3)

    assert all(torch.equal(a, b) for a, b in zip(problem.values(), before, strict=True))
    for a, b in zip(run(problem, optimizer, 3), after, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_a_pickled_optimizer_steps_as_the_one_it_was_made_from(problem, make, name):
    optimizer = make(name, problem.groups())
    run(problem, optimizer, 2)

    problem_state = (problem.net, optimizer)
    net, again = pickle.loads(pickle.dumps(problem_state))
    state = (problem.values(), [p.detach() for p in net.parameters()])

    assert all(torch.equal(a, b) for a, b in zip(*state, strict=True))
    assert _equal(again.state_dict()["base"], optimizer.state_dict()["base"])
    assert again.param_groups[0]["params"][0] is next(net.parameters())


@pytest.mark.parametrize("name", ["sam", "ivon", "ema"])
def test_a_copy_with_a_scheduler_of_the_rate_attached_goes_on_by_itself(problem, make, name):
    optimizer = make(name, problem.groups())
    torch.optim.lr_scheduler.StepLR(optimizer, 10)
    run(problem, optimizer, 2)
    before = problem.values()

    twin, pair = copy.deepcopy((problem, optimizer))
    after = run(twin, pair, 1)
    net, again = pickle.loads(pickle.dumps((problem.net, optimizer)))

    assert (pair.steps, optimizer.steps, again.steps) == (3, 2, 2)
    assert all(torch.equal(a, b) for a, b in zip(problem.values(), before, strict=True))
    assert not torch.equal(after[0], before[0])
    assert again.param_groups[0]["params"][0] is next(net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_group_can_be_added_in_the_middle_of_a_run(problem, make, name):
    optimizer = make(name, problem.groups()[:2])
    run(problem, optimizer, 2)
    before = problem.values()
    group = problem.groups()[2]

    optimizer.add_param_group(group)
    run(problem, optimizer, 2)

    assert not torch.equal(problem.values()[-1], before[-1])
    again = make(name, problem.groups())
    again.load_state_dict(through_a_file(optimizer.state_dict()))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_step_of_an_added_group_is_no_longer_than_of_one_that_was_there(
    new_problem, make, name
):
    """An estimate that is made every few steps is absent for weights that come in between."""
    moved = []
    for late in (False, True):
        problem = new_problem(dropout=0.0)
        groups = problem.groups()
        optimizer = make(name, groups[:2] if late else groups)
        if late:
            run(problem, optimizer, 3)
            optimizer.add_param_group(groups[2])
        before = problem.values()
        run(problem, optimizer, 1)
        moved.append(joint_norm([a - b for a, b in zip(problem.values(), before, strict=True)]))
    assert float(moved[1]) < 10.0 * float(moved[0])


@pytest.mark.parametrize("name", WITH_RHO)
def test_a_group_with_radius_zero_stays_where_it_is_while_others_are_perturbed(
    new_problem, make, name
):
    problem = new_problem(dropout=0.0)
    groups = problem.groups()
    groups[2]["rho"] = 0.0
    base = {}
    if OPTIMIZERS[name].has_base:
        base = {"base": partial(torch.optim.SGD, lr=0.0, momentum=0.9)}
    optimizer = make(name, groups, rho=0.05, **base)
    before = problem.values()

    optimizer.step(problem.closure)
    optimizer.step(problem.closure)

    perturbation = [
        [float((a - b).norm()) for a, b in zip(point, before, strict=True)]
        for point in problem.points
    ]
    assert max(max(shift[-2:]) for shift in perturbation) == 0.0
    assert max(max(shift) for shift in perturbation) > 0.0
