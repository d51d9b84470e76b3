"""What every optimizer of the registry keeps, plain or not; a new method joins by registering."""

from functools import partial
from pathlib import Path

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS, evaluation_params, make_optimizer
from mbrl_flat.optim.base import joint_norm

NAMES = sorted(OPTIMIZERS)
WITH_ONLY = [name for name in NAMES if "only" in OPTIMIZERS[name].settings]
WITH_RHO = [n for n in NAMES if "rho" in OPTIMIZERS[n].settings]
WITH_EVERY = [name for name in NAMES if "every" in OPTIMIZERS[name].settings and name != "swa"]
NEUTRAL = [name for name in NAMES if OPTIMIZERS[name].neutral]
SEVERAL = [name for name in NAMES if OPTIMIZERS[name].evaluations > 1]
CONFIGS = Path(__file__).parents[3] / "configs" / "optimizer"


def everything(problem):
    return [*problem.values(), *[b.clone() for b in problem.net.buffers()]]


def test_every_registered_optimizer_has_a_config_and_the_other_way_round():
    assert set(OPTIMIZERS) == {path.stem for path in CONFIGS.glob("*.yaml")}


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_is_an_arxiv_number_if_there_is_one(name):
    assert not OPTIMIZERS[name].paper or OPTIMIZERS[name].paper.startswith("arXiv:")


@pytest.mark.parametrize("name", NAMES)
def test_the_closure_is_called_as_often_as_registered(problem, make, name):
    optimizer = make(name, problem.groups())
    steps = 20

    for _ in range(steps):
        optimizer.step(problem.closure)

    # Methods with a plain step now and then are registered with their mean.
    assert problem.calls == pytest.approx(steps * OPTIMIZERS[name].evaluations, abs=1.0)


@pytest.mark.parametrize("name", NAMES)
def test_step_reports_the_calls_and_returns_the_loss_of_the_first(problem, make, name):
    optimizer = make(name, problem.groups())

    loss = optimizer.step(problem.closure)

    assert optimizer.last["evaluations"] == problem.calls
    assert torch.isfinite(loss)
    if OPTIMIZERS[name].clean_first:
        assert float(loss) == problem.losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_clean_first_says_whether_the_first_evaluation_is_at_the_weights(problem, make, name):
    optimizer = make(name, problem.groups())
    # The first step of a method that looks along its momentum has none yet.
    optimizer.step(problem.closure)
    before, calls = problem.values(), problem.calls

    optimizer.step(problem.closure)

    at_the_weights = all(
        torch.equal(a, b) for a, b in zip(problem.points[calls], before, strict=True)
    )
    assert at_the_weights == OPTIMIZERS[name].clean_first


@pytest.mark.parametrize("name", NAMES)
def test_the_report_has_the_same_keys_for_every_method(problem, make, name):
    optimizer = make(name, problem.groups())

    optimizer.step(problem.closure)

    keys = ["evaluations", "grad_norm", "perturbation_norm", "perturbed_gap", "cosine", "skipped"]
    assert sorted(optimizer.last) == sorted(keys)
    assert all(torch.as_tensor(value).ndim == 0 for value in optimizer.last.values())


@pytest.mark.parametrize("name", NEUTRAL)
def test_without_its_perturbation_a_method_is_its_base_bit_for_bit(new_problem, make, name):
    """Sixty steps through dropout, BatchNorm and clipping."""
    plain, method = new_problem(), new_problem()
    reference = make_optimizer("adam", plain.groups(), lr=1e-2, max_grad_norm=0.5)
    neutral = dict(OPTIMIZERS[name].neutral)
    optimizer = make(name, method.groups(), max_grad_norm=0.5, **neutral)
    states = []
    for chosen, at in ((reference, plain), (optimizer, method)):
        torch.manual_seed(7)
        for _ in range(60):
            chosen.step(at.closure)
        states.append(everything(at))

    for a, b in zip(*states, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", SEVERAL)
def test_every_evaluation_of_a_step_draws_the_same_dropout_mask(new_problem, make, name):
    """The weights move so little that only another mask could change the output by much."""
    problem = new_problem(dropout=0.5)
    small = {
        k: 1e-9 for k in ("rho", "sigma", "inner_rho", "inner_lr") if k in OPTIMIZERS[name].settings
    }
    if name == "sampa":
        # Its second point is a step of the learning rate ahead.
        small["base"] = partial(torch.optim.SGD, lr=1e-9)
    optimizer = make(name, problem.groups(), **small)

    optimizer.step(problem.closure)

    for output in problem.outputs[1:]:
        torch.testing.assert_close(output, problem.outputs[0], rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_random_streams_end_where_one_evaluation_leaves_them(new_problem, make, name):
    problem, other = new_problem(), new_problem()
    optimizer = make(name, problem.groups())
    torch.manual_seed(3)
    other.closure()
    expected = torch.rand(4)

    torch.manual_seed(3)
    optimizer.step(problem.closure)

    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("name", NAMES)
def test_running_statistics_move_once_in_a_step(problem, make, name):
    optimizer = make(name, problem.groups())

    optimizer.step(problem.closure)

    assert int(problem.net.norm.num_batches_tracked) == 1


@pytest.mark.parametrize("name", NAMES)
def test_parameters_keep_their_storage(problem, make, name):
    optimizer = make(name, problem.groups())
    pointers = [p.data_ptr() for p in problem.params()]

    for _ in range(3):
        optimizer.step(problem.closure)

    assert [p.data_ptr() for p in problem.params()] == pointers


@pytest.mark.parametrize("name", NAMES)
def test_a_tied_weight_is_one_parameter(problem, make, name):
    problem.net.head.weight = torch.nn.Parameter(problem.net.encoder.weight[:1].repeat(1, 2))
    tied = torch.nn.ModuleDict({"a": problem.net, "b": problem.net.head})
    optimizer = make(name, tied)

    optimizer.step(problem.closure)

    assert len(optimizer.param_groups[0]["params"]) == len(problem.params())


@pytest.mark.parametrize("name", NAMES)
def test_the_learning_rate_of_a_scheduler_reaches_the_step(problem, make, unmoved, name):
    optimizer = make(name, problem.groups())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step == 0))
    optimizer.step(problem.closure)
    scheduler.step()
    before = problem.values()

    optimizer.step(problem.closure)

    assert unmoved(name, problem.values(), before)


@pytest.mark.parametrize("name", NAMES)
def test_the_final_gradient_is_clipped_once_and_jointly(problem, make, name):
    settings = (
        {"base": partial(torch.optim.SGD, lr=1.0, momentum=0.9)}
        if OPTIMIZERS[name].has_base
        else {}
    )
    optimizer = make(name, problem.groups(), max_grad_norm=1e-3, **settings)

    optimizer.step(problem.closure)

    norm = joint_norm([p.grad for p in problem.params()])
    torch.testing.assert_close(norm, torch.tensor(1e-3, dtype=norm.dtype), rtol=1e-2, atol=0)
    assert float(optimizer.last["grad_norm"]) > 1e-3


# The published SAM moves what is not selected before the second evaluation: its own test has that.
@pytest.mark.parametrize("name", sorted({*WITH_ONLY} - {"sassha", "sam_as_published"}))
def test_only_the_selected_parameters_are_perturbed_and_all_are_moved(problem, make, name):
    optimizer = make(name, problem.groups(), only=["head"])
    before = problem.values()

    optimizer.step(problem.closure)

    for point in problem.points:
        assert all(torch.equal(a, b) for a, b in zip(point[:-2], before[:-2], strict=True))
    moved = [not torch.equal(a, b) for a, b in zip(problem.values(), before, strict=True)]
    # The bias before BatchNorm has no gradient but rounding.
    assert all(flag for i, flag in enumerate(moved) if i != 1)


def test_sam_on_perturbs_what_both_its_choices_hold(new_problem, make):
    def step(problem, **choice):
        make("sam_on", problem.groups(), **choice).step(problem.closure)
        return problem.values()

    assert all(map(torch.equal, step(new_problem(), only=["-head"]), step(new_problem())))
    with pytest.raises(UserError, match="holds no parameter of layers=norm"):
        step(new_problem(), only=["head"], layers="norm")


@pytest.mark.parametrize("name", WITH_RHO)
def test_every_method_with_a_radius_takes_the_same_three_words(name):
    assert {"rho", "only", "every"} <= set(OPTIMIZERS[name].settings)


@pytest.mark.parametrize("name", sorted(set(WITH_EVERY) - {"looksam", "sampa", "sassha"}))
def test_steps_between_those_that_displace_are_plain(problem, make, name):
    optimizer = make(name, problem.groups(), every=3)
    evaluations = []

    for _ in range(6):
        before, calls = problem.values(), problem.calls
        optimizer.step(problem.closure)
        evaluations.append(problem.calls - calls)
        if evaluations[-1] == 1 and len(evaluations) % 3 != 1:
            assert all(map(torch.equal, problem.points[calls], before))
            assert float(optimizer.last["perturbation_norm"]) == 0.0

    perturbed = 1 + (OPTIMIZERS[name].evaluations > 1) * (evaluations[0] - 1)
    assert evaluations == [perturbed, 1, 1, perturbed, 1, 1]


@pytest.mark.parametrize("name", WITH_EVERY)
@pytest.mark.parametrize("every", [0, 2.5])
def test_steps_that_cannot_be_counted_are_refused(problem, make, name, every):
    with pytest.raises(UserError, match=f"every must be .*, got {every}"):
        make(name, problem.groups(), every=every)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_params_can_be_nested_and_give_the_weights_back_exactly(problem, make, name):
    optimizer = make(name, problem.groups())
    for _ in range(3):
        optimizer.step(problem.closure)
    before = problem.values()

    with evaluation_params(optimizer):
        once = problem.values()
        with evaluation_params(optimizer):
            twice = problem.values()
        again = problem.values()

    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(problem.values(), before, strict=True))
