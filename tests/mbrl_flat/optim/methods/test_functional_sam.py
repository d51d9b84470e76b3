"""Functional-SAM against its equation on networks of two weights, in float64."""

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim import FunctionalSAM

LR, RHO, X, Y = 0.1, 0.3, 1.5, 0.7


class Product(nn.Module):
    """F = a b x, in two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in range(2))
        with torch.no_grad():
            self.a.weight.fill_(2.0)
            self.b.weight.fill_(-1.0)

    def forward(self, x):
        return self.b(self.a(x))


def step(net, **settings):
    optimizer = FunctionalSAM(net, base=torch.optim.SGD, lr=LR, rho=RHO, **settings)
    x = torch.full((1, 1), X, dtype=torch.float64)

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * (net(x) - Y).square().mean()
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    return torch.stack([p.detach().reshape(()) for p in net.parameters()])


@pytest.mark.parametrize("outputs", [None, ["b.weight"]])
def test_the_jacobian_is_perturbed_and_the_derivative_of_the_loss_is_not(outputs):
    """arXiv:2502.02407: d = J(w + e)^T (F(w) - y), with J = (b x, a x)."""
    w = torch.tensor([2.0, -1.0], dtype=torch.float64)
    residual = w[0] * w[1] * X - Y
    gradient = residual * X * w.flip(0)
    there = w + RHO * gradient / gradient.norm()

    result = step(Product(), outputs=outputs)

    torch.testing.assert_close(result, w - LR * residual * X * there.flip(0), rtol=1e-12, atol=0)


def test_for_a_linear_network_it_is_gradient_descent():
    """Its Jacobian is the same everywhere."""
    net = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    w = net.weight.detach().clone().reshape(())

    result = step(net)

    torch.testing.assert_close(result[0], w - LR * (w * X - Y) * X, rtol=1e-12, atol=0)


def test_a_loss_without_layers_is_refused():
    param = nn.Parameter(torch.ones(2))
    optimizer = FunctionalSAM([param], base=torch.optim.SGD, lr=LR)

    def closure():
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss.detach()

    with pytest.raises(UserError, match="found no layer"):
        optimizer.step(closure)
