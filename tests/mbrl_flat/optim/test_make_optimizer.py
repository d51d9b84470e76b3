"""Optimizers by name: what is accepted, what is refused and how it is said."""

import importlib.util
from functools import partial
from unittest import mock

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS, FlatOptimizer, make_optimizer, registry
from mbrl_flat.optim.base_optimizers import BASES


@pytest.fixture
def model():
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))


@pytest.mark.parametrize("base", sorted(BASES))
def test_every_base_of_torch_can_be_named(model, base):
    optimizer = make_optimizer("sam", model, base=base, lr=0.25)

    assert isinstance(optimizer, FlatOptimizer)
    assert type(optimizer.base) is BASES[base]
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_a_base_may_be_a_factory(model):
    optimizer = make_optimizer("sam", model, base=partial(torch.optim.SGD, lr=0.5))

    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_learning_rate_beside_a_factory_is_refused(model):
    with pytest.raises(UserError, match="factory"):
        make_optimizer("sam", model, base=partial(torch.optim.SGD, lr=0.5), lr=0.1)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("smm", {}, "did you mean 'sam'"),
        ("sam", {"rhoo": 0.1}, "did you mean 'rho'"),
        ("sam", {"base": "adm"}, "adam"),
        ("sam", {"every": 0}, "every"),
        ("sam", {"max_grad_norm": 0.0}, "max_grad_norm"),
        ("sam", {"on_nonfinite": "ignore"}, "on_nonfinite"),
        ("vasso", {"theta": 0.0}, "theta"),
        ("asam", {"ball": "l1"}, "ball"),
        ("asam", {"eta": -1.0}, "eta"),
        ("asam", {"scope": "net"}, "scope"),
        ("friendly_sam", {"decay": 1.0}, "decay"),
        ("fisher_sam", {"eta": -1.0}, "eta"),
        ("ssam", {"sparsity": 1.0}, "sparsity"),
        ("ssam", {"refresh": 0}, "refresh"),
        ("wsam", {"gamma": 1.0}, "gamma"),
        ("wsam", {"form": "both"}, "form"),
        ("sam_on", {"form": "sm"}, "form"),
        ("esam", {"beta": 0.0}, "beta"),
        ("gam", {"inner_rho": -0.1}, "inner_rho"),
        ("vgd", {"sigma": -0.1}, "sigma"),
        ("vgd", {"num_samples": 0}, "num_samples"),
        ("vgd", {"dof": 0.0}, "dof"),
        ("lpf_sgd", {"sigma": -0.1}, "sigma"),
        ("entropy_sgd", {"inner_steps": 0}, "inner_steps"),
        ("ivon", {"ess": 0.0}, "ess"),
        ("bsam", {"num_data": 0.0}, "num_data"),
        ("ema", {"decay": 1.0}, "decay"),
        ("swa", {"every": 0}, "every"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(model, name, settings, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(name, model, **settings)


def test_no_parameters_are_refused():
    with pytest.raises(UserError, match="no parameters"):
        make_optimizer("sam", [])


def test_the_callers_groups_stay_as_they_are(model):
    groups = [{"params": list(model.parameters()), "lr_scale": 0.3, "name": "all"}]

    optimizer = make_optimizer("sam", groups, lr=1.0)

    assert groups == [{"params": list(model.parameters()), "lr_scale": 0.3, "name": "all"}]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3)


@pytest.mark.skipif(
    importlib.util.find_spec("pytorch_optimizer") is None, reason="pytorch-optimizer is absent"
)
@pytest.mark.parametrize("base", ["lion", "adabelief"])
def test_the_optimizers_of_pytorch_optimizer_can_be_bases(problem, base):
    optimizer = make_optimizer("sam", problem.groups(), base=base, lr=1e-3, rho=0.05)
    before = problem.values()

    for _ in range(3):
        optimizer.step(problem.closure)

    assert problem.calls == 6
    assert not torch.equal(problem.values()[0], before[0])
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if not OPTIMIZERS[name].has_base])
@pytest.mark.parametrize("base", ["sgd", "nonsense", partial(torch.optim.SGD, lr=0.1)])
def test_a_base_is_refused_by_methods_that_have_none(name, base):
    with pytest.raises(UserError, match=f"{name} takes no base"):
        make_optimizer(name, torch.nn.Linear(2, 1), base=base)


@pytest.mark.parametrize("name", ["adam", "sam", "ema"])
def test_a_group_may_be_one_tensor_as_in_torch(name):
    weight = torch.nn.Parameter(torch.ones(2, 2))

    optimizer = make_optimizer(name, [{"params": weight}])

    assert optimizer.param_groups[0]["params"][0] is weight


@pytest.mark.parametrize("name", ["adam", "sam", "ivon"])
def test_the_first_group_may_be_empty_as_in_torch(name):
    weight = torch.nn.Parameter(torch.ones(2, 2))

    optimizer = make_optimizer(name, [{"params": []}, {"params": [weight]}])

    assert optimizer.param_groups[1]["params"][0] is weight


def test_the_catalogue_imports_what_other_packages_register_when_it_lacks_a_name(monkeypatch):
    imported = []

    class Point:
        def load(self):
            imported.append(registry.OPTIMIZERS.setdefault("theirs", registry.OPTIMIZERS["sam"]))

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    with mock.patch.dict(registry.OPTIMIZERS):
        assert "sam" in registry.OPTIMIZERS
        assert not imported
        assert "theirs" in registry.OPTIMIZERS
    assert "theirs" not in dict(registry.OPTIMIZERS)
