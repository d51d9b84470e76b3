"""Radii that change: their formulas, and their way into a step and through a file."""

import copy
import math
from functools import partial

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import make_optimizer
from mbrl_flat.optim.schedules import Constant, Cosine, FollowsLearningRate, WarmUp
from mbrl_flat.runtime.files import save_atomically
from mbrl_flat.training.checkpoint import read_plain_data


def test_a_constant_does_not_change():
    assert [Constant(value=0.3)(step, 0.1) for step in (0, 10**6)] == [0.3, 0.3]


def test_a_warm_up_waits_rises_in_a_line_and_stays():
    radius = WarmUp(value=0.4, steps=4, delay=2)

    assert [radius(step, 0.1) for step in (0, 2, 3, 5, 6, 100)] == pytest.approx(
        [0.0, 0.0, 0.1, 0.3, 0.4, 0.4]
    )


def test_a_cosine_begins_at_start_is_halfway_in_the_middle_and_ends_at_end():
    radius = Cosine(start=0.4, end=0.2, steps=10)

    assert [radius(step, 0.1) for step in (0, 5, 10, 99)] == pytest.approx([0.4, 0.3, 0.2, 0.2])
    assert radius(1, 0.1) == pytest.approx(0.3 + 0.1 * math.cos(math.pi / 10))


def test_a_radius_follows_the_learning_rate_within_its_bounds():
    """arXiv:2203.08065; below lr_min it would be negative."""
    radius = FollowsLearningRate(rho_max=0.5, rho_min=0.1, lr_max=0.2, lr_min=0.1)

    assert [radius(0, lr) for lr in (0.0, 0.1, 0.15, 0.2, 9.0)] == pytest.approx(
        [0.1, 0.1, 0.3, 0.5, 0.5]
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Constant(value=-1.0),
        lambda: WarmUp(value=1.0, steps=0),
        lambda: WarmUp(value=-1.0, steps=1),
        lambda: Cosine(start=-0.1, end=0.0, steps=3),
        lambda: Cosine(start=0.1, end=0.0, steps=0),
        lambda: FollowsLearningRate(rho_max=0.1, rho_min=0.2, lr_max=1.0),
        lambda: FollowsLearningRate(rho_max=0.1, lr_max=0.0),
    ],
)
def test_bounds_that_make_no_schedule_are_refused(wrong):
    with pytest.raises(UserError):
        wrong()


def test_the_length_of_the_displacement_is_that_of_the_schedule(problem):
    optimizer = make_optimizer("sam", problem.groups(), rho=WarmUp(value=0.4, steps=4))
    lengths, evaluations = [], []

    for _ in range(6):
        optimizer.step(problem.closure)
        lengths.append(float(optimizer.last["perturbation_norm"]))
        evaluations.append(optimizer.last["evaluations"])

    assert lengths == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])
    # A radius of zero costs nothing.
    assert evaluations == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]


def test_the_schedule_goes_on_where_a_saved_run_stopped(problem):
    optimizer = make_optimizer("sam", problem.groups(), rho=WarmUp(value=0.4, steps=4))
    for _ in range(3):
        optimizer.step(problem.closure)
    again = make_optimizer("sam", problem.groups(), rho=WarmUp(value=0.4, steps=4))

    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again.step(problem.closure)

    assert float(again.last["perturbation_norm"]) == pytest.approx(0.3)


def test_the_radius_follows_a_scheduler_of_the_learning_rate(problem):
    rho = FollowsLearningRate(rho_max=0.5, lr_max=0.1)
    base = partial(torch.optim.SGD, lr=0.1)
    optimizer = make_optimizer("sam", problem.groups(), base=base, rho=rho)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    lengths = []

    for _ in range(3):
        optimizer.step(problem.closure)
        scheduler.step()
        lengths.append(float(optimizer.last["perturbation_norm"]))

    assert lengths == pytest.approx([0.5, 0.25, 0.125])


def test_the_schedule_of_a_group_is_a_setting_and_not_in_the_file(problem, tmp_path):
    def made():
        first, *others = problem.groups()
        groups = [{**first, "rho": WarmUp(value=0.4, steps=4)}, *others]
        return make_optimizer("sam", groups, base=partial(torch.optim.SGD, lr=0.1), rho=0.1)

    optimizer = made()
    for _ in range(2):
        optimizer.step(problem.closure)
    save_atomically(optimizer.state_dict(), tmp_path / "state.pt")
    again = made()
    again.load_state_dict(read_plain_data(tmp_path / "state.pt"))

    assert again.param_groups[0]["flat_rho"](4, 0.1) == 0.4
    for one in (optimizer, again):
        one.zero_grad()
    length = {}
    before, statistics = problem.values(), copy.deepcopy(problem.net.state_dict())
    for name, one in (("gone on", again), ("not stopped", optimizer)):
        problem.net.load_state_dict(statistics)
        torch.manual_seed(1)
        one.step(problem.closure)
        length[name] = float(one.last["perturbation_norm"])
    assert before
    assert length["gone on"] == length["not stopped"]
