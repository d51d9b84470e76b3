"""What a base may be: a name, a class, a factory, an object; and what is refused."""

from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim import SAM, MomentumSAM, make_optimizer

SHAPES = [(3, 2), (3,)]


def params(seed=0):
    torch.manual_seed(seed)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def closure_of(optimizer, tensors, sign=1.0):
    def closure():
        optimizer.zero_grad()
        loss = sign * sum((t - 1.0).square().sum() + t.pow(4).sum() for t in tensors)
        loss.backward()
        return loss.detach()

    return closure


def run(optimizer, tensors, sign=1.0, steps=3):
    for _ in range(steps):
        optimizer.step(closure_of(optimizer, tensors, sign))
    return [t.detach() for t in tensors]


def test_a_name_a_class_a_factory_and_an_object_make_the_same_steps():
    results = []
    for kind in ("name", "class", "factory", "object"):
        own = params()
        base = {
            "name": {"base": "rmsprop", "lr": 0.01},
            "class": {"base": torch.optim.RMSprop, "lr": 0.01},
            "factory": {"base": partial(torch.optim.RMSprop, lr=0.01)},
            "object": {"base": torch.optim.RMSprop(own, lr=0.01)},
        }[kind]
        results.append(run(SAM(own, rho=0.1, **base), own))

    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_groups_of_an_object_are_taken_over_with_their_rates():
    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    base = torch.optim.SGD(
        [{"params": net[0].parameters(), "lr": 0.5}, {"params": net[1].parameters(), "lr": 0.25}]
    )

    optimizer = SAM(net, base=base, only=["norm"])

    assert optimizer.param_groups is base.param_groups
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]


def test_an_object_for_other_parameters_is_refused():
    with pytest.raises(UserError, match="same parameters"):
        SAM(params(), base=torch.optim.SGD(params(1), lr=0.1))


@pytest.mark.parametrize("base", [torch.optim.LBFGS, torch.optim.SparseAdam])
def test_a_base_that_takes_no_gradient_is_refused(base):
    with pytest.raises(UserError, match="cannot be a base"):
        SAM(params(), base=base)


@pytest.mark.parametrize(
    "settings", [{"lr": -1.0}, {"lr": None}, {"lr": float("inf")}, {"weight_decay": -1.0}]
)
def test_settings_that_a_base_refuses_are_named(settings):
    with pytest.raises(UserError, match="AdamW"):
        SAM(params(), base=partial(torch.optim.AdamW, **settings))


def test_something_else_is_no_base():
    with pytest.raises(UserError, match="no base optimizer"):
        SAM(params(), base=3)


def test_complex_parameters_are_refused():
    with pytest.raises(UserError, match="complex"):
        SAM([nn.Parameter(torch.ones(2, dtype=torch.complex64))])


@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_the_rho_of_adadelta_is_no_radius(rho):
    own = params()
    optimizer = SAM(own, base=partial(torch.optim.Adadelta, lr=1.0), rho=rho)

    run(optimizer, own, steps=1)

    assert float(optimizer.last["perturbation_norm"]) == pytest.approx(rho)
    assert optimizer.param_groups[0]["rho"] == 0.9


class Tagging(torch.optim.SGD):
    """Puts keys into its groups that its defaults lack."""

    def __init__(self, tensors, lr=0.1):
        super().__init__(tensors, lr=lr)
        for group in self.param_groups:
            group.update(rho=0.9, name="its own", lr_scale=7.0)


def test_keys_that_a_base_adds_to_its_groups_stay_its_own():
    own = params()
    optimizer = SAM(own, base=Tagging, rho=0.05)

    run(optimizer, own, steps=1)
    optimizer.load_state_dict(optimizer.state_dict())
    run(optimizer, own, steps=1)

    group = optimizer.param_groups[0]
    assert float(optimizer.last["perturbation_norm"]) == pytest.approx(0.05)
    assert (group["lr"], group["rho"], group["name"]) == (0.1, 0.9, "its own")


@pytest.mark.parametrize("name", ["sam", "asam", "gsam", "gam", "cr_sam", "sagm", "wsam", "msam"])
def test_maximising_is_minimising_the_opposite(name):
    results = []
    for sign in (1.0, -1.0):
        own = params()
        base = partial(torch.optim.SGD, lr=0.01, momentum=0.9, maximize=sign < 0.0)
        results.append(run(make_optimizer(name, own, base=base, rho=0.1), own, sign))

    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class Forgetful(torch.optim.Optimizer):
    """Has betas and keeps no momentum."""

    def __init__(self, tensors, lr=0.1, betas=(0.9, 0.999)):
        super().__init__(tensors, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param]["exp_avg_sq"] = param.grad.square()
                param.sub_(param.grad, alpha=group["lr"])


def test_momentum_sam_refuses_a_base_that_leaves_no_momentum():
    own = params()
    with pytest.raises(UserError, match="exp_avg_sq"):
        run(MomentumSAM(own, base=Forgetful, rho=0.1), own, steps=1)


def test_a_schedule_free_base_evaluates_with_its_average():
    package = pytest.importorskip("pytorch_optimizer")
    own = params()
    base = partial(package.load_optimizer("schedulefreeadamw"), lr=0.1)
    optimizer = SAM(own, base=base, rho=0.1)
    run(optimizer, own)
    trained = [p.detach().clone() for p in own]
    beta = optimizer.param_groups[0]["betas"][0]

    with optimizer.evaluation_params():
        averaged = [p.detach().clone() for p in own]

    assert all(torch.equal(a, b) for a, b in zip(own, trained, strict=True))
    for x, y, p in zip(averaged, trained, own, strict=True):
        z = optimizer.state[p]["z"]
        torch.testing.assert_close(y, beta * x + (1.0 - beta) * z, rtol=1e-4, atol=1e-5)


def test_muon_moves_matrices_and_adamw_the_rest():
    """Against both of torch, on their own parameters."""
    own, matrix, vector = params(), *params()
    optimizer = SAM(own, base="muon", lr=0.01, rho=0.0)
    muon = torch.optim.Muon(
        [matrix], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW([vector], lr=0.01, weight_decay=0.1)

    run(optimizer, own)
    for _ in range(3):
        for one, tensors in ((muon, [matrix]), (adamw, [vector])):
            closure_of(one, tensors)()
            one.step()

    torch.testing.assert_close(own[0], matrix, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(own[1], vector, rtol=1e-6, atol=1e-7)


def test_the_representation_names_method_radius_and_base():
    assert repr(SAM(params(), base="adam", lr=0.01, rho=0.1)).startswith("SAM(rho=0.1")
    assert repr(SAM(params(), base="adam", lr=0.01)).endswith("base=Adam(lr=0.01))")


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("sophiah", "The base SophiaH fails in its step"),
        ("adahessian", "The base AdaHessian fails in its step"),
        ("spectralsphere", "only supports 2D parameters"),
        ("lomo", "refuses its settings"),
    ],
)
def test_a_base_that_a_gradient_is_not_enough_for_is_named(base, said):
    own = params()
    with pytest.raises(UserError, match=said):
        run(make_optimizer("sam", own, base=base, lr=0.1), own)


def test_a_base_without_a_learning_rate_is_perturbed_as_any_other():
    own = params()
    before = [t.detach().clone() for t in own]
    optimizer = make_optimizer("sam", own, base="a2grad")
    run(optimizer, own)
    assert optimizer.last["perturbation_norm"] == pytest.approx(0.05, rel=1e-5)
    assert not torch.equal(before[0], own[0])
