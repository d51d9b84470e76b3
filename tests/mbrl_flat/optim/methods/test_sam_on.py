"""SAM-ON against its equations on quadratics, in float64."""

from functools import partial

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, close


class Scaled(torch.nn.Module):
    """A layer norm's scale and shift on a fixed input, then a linear map: quadratic in each."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(2).double()
        self.linear = torch.nn.Linear(2, 1).double()

    def forward(self, x):
        return self.linear(self.norm(x))


def perturbations(**settings):
    """Parameters before the step and their perturbations in it, by name."""
    model, seen = Scaled(), []
    x = torch.tensor([[1.0, 2.0], [5.0, 3.0]], dtype=torch.float64)

    def closure():
        model.zero_grad()
        seen.append([p.detach().clone() for p in model.parameters()])
        loss = model(x).square().sum()
        loss.backward()
        return loss.detach()

    make_optimizer("sam_on", model, base=partial(torch.optim.SGD, lr=LR), **settings).step(closure)
    names = [name for name, _ in model.named_parameters()]
    before, after = seen
    return dict(zip(names, before, strict=True)), {
        name: b - a for name, a, b in zip(names, before, after, strict=True)
    }


def test_the_complement_perturbs_everything_but_norm_layers():
    _, shift = perturbations(rho=0.7, layers="other")

    assert not shift["norm.weight"].any()
    assert not shift["norm.bias"].any()
    rest = torch.cat([shift["linear.weight"].flatten(), shift["linear.bias"]])
    close(rest.norm(), torch.tensor(0.7, dtype=torch.float64))


def test_asam_by_layer_perturbs_in_units_of_the_layers_norm():
    """T is the norm of the scales, which are ones, and 1 for the shift."""
    torch.manual_seed(0)
    start, shift = perturbations(rho=0.7, form="asam_layer")

    size = start["norm.weight"].norm()
    scaled = torch.cat([shift["norm.weight"] / size, shift["norm.bias"]])
    close(scaled.norm(), torch.tensor(0.7, dtype=torch.float64))


@pytest.mark.parametrize("form", ["sam", "asam_l2", "asam_linf", "asam_layer", "fisher"])
def test_every_form_perturbs_norm_layers_only(form):
    _, shift = perturbations(rho=0.7, form=form)

    moved = {name for name, change in shift.items() if change.any()}

    assert moved <= {"norm.weight", "norm.bias"}
    assert moved


def test_the_complement_of_a_model_of_norm_layers_is_refused():
    with pytest.raises(UserError, match="nothing is perturbed"):
        make_optimizer("sam_on", torch.nn.LayerNorm(3), layers="other")


@pytest.mark.parametrize("setting", ["form", "layers"])
def test_an_unknown_choice_is_refused(setting):
    with pytest.raises(UserError, match="nrom"):
        make_optimizer("sam_on", Scaled(), **{setting: "nrom"})


def test_the_parameters_of_norm_layers_are_perturbed_by_rho_and_no_others():
    model, seen = Scaled(), []
    x = torch.tensor([[1.0, 2.0], [5.0, 3.0]], dtype=torch.float64)

    def closure():
        model.zero_grad()
        seen.append([p.detach().clone() for p in model.parameters()])
        loss = model(x).square().sum()
        loss.backward()
        return loss.detach()

    make_optimizer("sam_on", model, base=partial(torch.optim.SGD, lr=LR), rho=0.7).step(closure)

    shift = [b - a for a, b in zip(*seen, strict=True)]
    close(torch.cat(shift[:2]).norm(), torch.tensor(0.7, dtype=torch.float64))
    assert not shift[2].any()
    assert not shift[3].any()
    assert all(not torch.equal(p, old) for p, old in zip(model.parameters(), seen[0], strict=True))


def test_a_model_without_norm_layers_is_refused():
    with pytest.raises(UserError, match="norm"):
        make_optimizer("sam_on", torch.nn.Linear(2, 1), base="sgd")
