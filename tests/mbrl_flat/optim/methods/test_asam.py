"""ASAM against its equations on quadratics, in float64."""

from functools import partial

import pytest
import torch

from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


@pytest.mark.parametrize("eta", [0.0, 0.01])
def test_one_asam_step_perturbs_along_the_gradient_scaled_by_the_weights(quadratic, eta):
    """arXiv:2102.11600: e = rho T^2 g / |T g|, T = |w| + eta."""
    g, t = grad(START), START.abs() + eta

    result = one_step(quadratic, "asam", rho=0.5, eta=eta)

    close(result, START - LR * grad(START + 0.5 * t**2 * g / (t * g).norm()))


def test_asam_in_the_maximum_norm_perturbs_every_weight_by_its_size(quadratic):
    g, t = grad(START), START.abs() + 0.01

    result = one_step(quadratic, "asam", rho=0.5, ball="linf")

    close(result, START - LR * grad(START + 0.5 * t * g.sign()))


def test_asam_by_layer_is_sam_with_a_radius_in_units_of_the_layer(quadratic):
    g, t = grad(START), START.norm() * 1.01

    result = one_step(quadratic, "asam", rho=0.5, scope="layer")

    close(result, START - LR * grad(START + 0.5 * t * g / g.norm()))


def test_a_weight_of_zero_is_not_perturbed_without_the_guard(quadratic):
    start = torch.tensor([0.0, -2.0], dtype=torch.float64)

    result = one_step(quadratic, "asam", start=start, rho=0.5, eta=0.0)

    moved = start + torch.tensor([0.0, 0.5 * -2.0 * 1.0], dtype=torch.float64).abs() * -1.0
    close(result, start - LR * grad(moved))


def test_rescaling_the_weights_rescales_the_displacement_with_them():
    """L(w) = f(w1 w2): w -> (a w1, w2 / a) leaves the loss at the perturbed point as it is."""
    gaps = []
    for a in (1.0, 7.0):
        w = torch.nn.Parameter(torch.tensor([0.5 * a, 3.0 / a], dtype=torch.float64))

        def closure(w=w):
            w.grad = None
            loss = (w[0] * w[1] - 1.0) ** 2
            loss.backward()
            return loss.detach()

        base = partial(torch.optim.SGD, lr=0.0)
        optimizer = make_optimizer("asam", [w], base=base, rho=0.2, eta=0.0)
        optimizer.step(closure)
        gaps.append(optimizer.last["perturbed_gap"])

    close(gaps[1], gaps[0])


def test_biases_are_perturbed_as_in_sam():
    model = torch.nn.Linear(2, 1).double()
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    with torch.no_grad():
        model.bias.fill_(100.0)
    seen = []

    def closure():
        model.zero_grad()
        seen.append(model.bias.item())
        loss = model(x).sum()
        loss.backward()
        return loss.detach()

    base = partial(torch.optim.SGD, lr=0.0)
    make_optimizer("asam", model, base=base, rho=0.5, eta=0.0).step(closure)

    scaled = torch.cat([model.weight.detach().flatten().abs() * x[0], torch.ones(1).double()])
    assert seen[1] - seen[0] == pytest.approx(0.5 / float(scaled.norm()))


def test_biases_of_recurrent_layers_are_perturbed_as_in_sam_too():
    """T is 1 for a bias; at zero, the T of a weight would leave it where it is."""
    torch.manual_seed(0)
    layer, x, seen = torch.nn.GRU(2, 2), torch.randn(4, 3, 2), []
    torch.nn.init.zeros_(layer.bias_ih_l0)

    def closure():
        layer.zero_grad()
        seen.append(layer.bias_ih_l0.detach().clone())
        loss = layer(x)[0].square().mean()
        loss.backward()
        return loss.detach()

    base = partial(torch.optim.SGD, lr=0.0)
    make_optimizer("asam", layer, base=base, rho=0.5, eta=0.0).step(closure)

    assert float((seen[1] - seen[0]).norm()) > 0.01
