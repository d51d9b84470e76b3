"""Second derivatives go through everything that world models are built of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mbrl_flat.diagnostics.hvp import Hessian
from mbrl_flat.diagnostics.lanczos import lanczos
from mbrl_flat.diagnostics.sharpness_probe import SharpnessProbe
from mbrl_flat.diagnostics.vectors import flatten, perturbed
from mbrl_flat.interfaces import ProbeLoss
from mbrl_flat.models.activations import mish, simnorm


class Block(nn.Module):
    """A pre-norm transformer block with causal attention."""

    def __init__(self, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(mixed.transpose(1, 2).flatten(-2))


class LastState(nn.Module):
    """A GRU, of which the last output is kept."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 5, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0][:, -1]


class Function(nn.Module):
    """A layer without weights, after one with weights."""

    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(8, 6), function

    def forward(self, x):
        return self.function(self.linear(x))


def convolutions():
    return nn.Sequential(
        nn.Unflatten(1, (1, 4)),
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.GroupNorm(1, 3),
        nn.SiLU(),
        nn.ConvTranspose2d(3, 2, 2, stride=2),
        nn.Flatten(),
    )


NETS = {
    "attention": Block,
    "torch's attention": lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True),
    "convolution": convolutions,
    "gru": LastState,
    "gru cell": lambda: nn.Sequential(nn.Flatten(0, 1), nn.GRUCell(8, 5)),
    "layer norm": lambda: nn.LayerNorm(8),
    "mish": lambda: Function(nn.Mish()),
    "our mish": lambda: Function(mish),
    "our simnorm": lambda: Function(lambda x: simnorm(x, 3)),
    "silu": lambda: Function(nn.SiLU()),
    "gelu": lambda: Function(nn.GELU()),
    "elu": lambda: Function(nn.ELU()),
}


def loss_of(name):
    torch.manual_seed(0)
    net = NETS[name]().double()
    x = torch.randn(6, 4, 8, dtype=torch.float64)
    shape = net(x).shape
    target = torch.randn(shape, dtype=torch.float64)
    return net, lambda: (net(x) - target).square().mean() + 0.1 * net(x).logsumexp(-1).mean()


def gradient(loss, params):
    return flatten(torch.autograd.grad(loss(), params))


@pytest.mark.parametrize("name", NETS)
def test_products_are_the_differences_of_the_gradient(name):
    net, loss = loss_of(name)
    params = list(net.parameters())
    generator = torch.Generator().manual_seed(1)
    hessian = Hessian(loss, params)
    u, v = (
        torch.randn(hessian.size, dtype=torch.float64, generator=generator).div_(hessian.size**0.5)
        for _ in "uv"
    )
    product = hessian(v)
    forth, back = float(u @ product), float(v @ hessian(u))

    step = 1e-5
    with perturbed(params, step * v):
        ahead = gradient(loss, params)
    with perturbed(params, -step * v):
        behind = gradient(loss, params)

    torch.testing.assert_close(product, (ahead - behind) / (2.0 * step), rtol=1e-5, atol=1e-8)
    assert forth == pytest.approx(back, rel=1e-9, abs=1e-12)
    assert float(product.norm()) > 1e-6


@pytest.mark.parametrize("name", ["attention", "convolution", "gru", "our mish", "layer norm"])
def test_extreme_eigenvalues_are_those_of_the_dense_hessian(name):
    net, loss = loss_of(name)
    params = list(net.parameters())
    hessian = Hessian(loss, params)
    dense = torch.stack([hessian(row) for row in torch.eye(hessian.size, dtype=torch.float64)])
    exact = torch.linalg.eigvalsh(dense)
    start = torch.randn(hessian.size, generator=torch.Generator().manual_seed(2)).double()

    found = lanczos(hessian, start, max_iterations=hessian.size, tolerance=1e-5)

    assert found.converged
    assert found.lambda_max == pytest.approx(float(exact[-1]), rel=1e-4)
    assert found.lambda_min == pytest.approx(float(exact[0]), rel=1e-4, abs=1e-7)


def test_the_probe_chooses_the_attention_that_can_be_differentiated_twice():
    """In single precision the default kernel on this device has no second derivative."""
    torch.manual_seed(0)
    net = Block(width=16)
    x = torch.randn(4, 8, 16)
    probed = ProbeLoss(lambda: net(x).square().mean(), {"block": list(net.parameters())})

    row = SharpnessProbe(iterations=30, tolerance=1e-3).measure(probed)

    params = list(net.parameters())
    double = Hessian(probed.loss, params)
    start = torch.randn(double.size, generator=torch.Generator().manual_seed(5))
    again = lanczos(double, start, max_iterations=60, tolerance=1e-4)
    assert row["lambda_max"] == pytest.approx(again.lambda_max, rel=1e-3)
    assert row["block/lambda_max"] == pytest.approx(row["lambda_max"], rel=1e-3)
    assert row["sam_gap"] > 0.0
