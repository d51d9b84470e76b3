"""The costlier measures of sharpness against dense matrices and closed forms."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mbrl_flat.diagnostics import perturbed_sharpness
from mbrl_flat.diagnostics.gauss_newton import GaussNewton
from mbrl_flat.diagnostics.hvp import Hessian
from mbrl_flat.diagnostics.lanczos import lanczos
from mbrl_flat.diagnostics.preconditioned import preconditioned
from mbrl_flat.diagnostics.sharpness import ascent, loss_regions, sam_gap
from mbrl_flat.diagnostics.sharpness_measures import (
    AdaptiveSharpness,
    AlongGradient,
    AverageCaseSharpness,
    Context,
    Preconditioned,
    SamGaps,
    Trace,
    WorstCaseSharpness,
)
from mbrl_flat.diagnostics.sharpness_probe import SharpnessProbe
from mbrl_flat.diagnostics.trace import hutchinson
from mbrl_flat.diagnostics.vectors import flatten
from mbrl_flat.interfaces import ProbeLoss


def quadratic(hessian, weight):
    weight = nn.Parameter(torch.as_tensor(weight, dtype=torch.float64))
    matrix = torch.as_tensor(hessian, dtype=torch.float64)
    probed = ProbeLoss(lambda: 0.5 * weight @ matrix @ weight, {"all": [weight]})
    return loss_regions(probed, per_module=False)[0]


def classifier(dtype=torch.float64, hidden=(6,), seed=0):
    torch.manual_seed(seed)
    sizes = [4, *hidden, 5]
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Mish()]
    net = nn.Sequential(*layers[:-1]).to(dtype)
    x = torch.randn(16, 4, dtype=dtype)
    target = torch.softmax(torch.randn(16, 5, dtype=dtype), -1)
    return net, lambda: net(x), lambda logits: F.cross_entropy(logits, target)


def dense(product, size, dtype=torch.float64):
    return torch.stack([product(row) for row in torch.eye(size, dtype=dtype)])


def symmetric(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(size, size, dtype=torch.float64, generator=generator)
    return a + a.T


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_extreme_eigenvalues_of_a_network_are_those_of_its_dense_hessian(
    dtype, tolerance, generator
):
    net, outputs, loss = classifier(dtype)
    hessian = Hessian(lambda: loss(outputs()), list(net.parameters()))
    values = torch.linalg.eigvalsh(dense(hessian, hessian.size, dtype).double())
    start = torch.randn(hessian.size, generator=generator).to(dtype)

    found = lanczos(hessian, start, max_iterations=60, tolerance=1e-6)

    assert found.lambda_max == pytest.approx(float(values[-1]), rel=tolerance)
    assert found.lambda_min == pytest.approx(float(values[0]), rel=10 * tolerance)


def test_the_trace_of_a_diagonal_matrix_takes_one_draw(generator):
    diagonal = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64)

    found = hutchinson(lambda v: diagonal * v, diagonal, samples=1, generator=generator)

    assert found.mean == pytest.approx(4.0, abs=1e-12)
    assert math.isnan(found.standard_error)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_trace_of_a_network_is_within_four_standard_errors(dtype, generator):
    net, outputs, loss = classifier(dtype)
    hessian = Hessian(lambda: loss(outputs()), list(net.parameters()))
    exact = float(dense(hessian, hessian.size, dtype).trace())

    found = hutchinson(hessian, hessian.gradient, samples=100, generator=generator)

    assert abs(found.mean - exact) <= 4.0 * found.standard_error
    assert found.standard_error < 0.2 * abs(exact)


def test_the_standard_error_of_the_trace_is_hutchinsons(generator):
    """Variance of a draw: twice the squared off-diagonal entries."""
    matrix = symmetric(8)
    exact = (2.0 * (matrix.square().sum() - matrix.diagonal().square().sum())) ** 0.5

    found = hutchinson(matrix.__matmul__, matrix[0], samples=4000, generator=generator)

    assert found.standard_error * 4000**0.5 == pytest.approx(float(exact), rel=0.1)


def test_gauss_newton_of_a_linear_model_is_its_hessian():
    net, outputs, loss = classifier(hidden=())
    params = list(net.parameters())

    hessian = Hessian(lambda: loss(outputs()), params)
    approximation = GaussNewton(outputs, loss, params)

    size = hessian.size
    torch.testing.assert_close(
        dense(approximation, size), dense(hessian, size), rtol=1e-10, atol=1e-12
    )


def test_gauss_newton_of_a_classifier_is_its_formula_and_has_no_negative_eigenvalue():
    """G = 1/B sum_b J_b^T (diag(p) - p p^T) J_b."""
    net, outputs, loss = classifier()
    params = list(net.parameters())
    logits = outputs()
    rows = [
        torch.stack([flatten(torch.autograd.grad(z, params, retain_graph=True)) for z in sample])
        for sample in logits
    ]
    expected = sum(
        j.T @ (torch.diag(p) - torch.outer(p, p)) @ j
        for j, p in zip(rows, logits.detach().softmax(-1), strict=True)
    ) / len(rows)

    found = dense(GaussNewton(outputs, loss, params), expected.shape[0])

    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert float(torch.linalg.eigvalsh(found)[0]) >= -1e-12


def test_more_ascent_finds_the_worst_point_of_a_quadratic():
    """The slope points along the flat axis, so one step goes the wrong way."""
    region = quadratic(torch.diag(torch.tensor([10.0, 1.0])), [0.001, 0.1])
    angle = torch.linspace(0.0, 2.0 * math.pi, 10_000, dtype=torch.float64)
    there = torch.stack([0.001 + 0.1 * angle.cos(), 0.1 + 0.1 * angle.sin()])
    exact = float((5.0 * there[0] ** 2 + 0.5 * there[1] ** 2).max()) - region.value

    one = perturbed_sharpness.worst_case_sharpness(region, rho=0.1, steps=1)
    many = perturbed_sharpness.worst_case_sharpness(region, rho=0.1, steps=40)

    assert one == pytest.approx(sam_gap(region, rho=0.1), abs=1e-15)
    assert one < 0.4 * exact
    assert 0.99 * exact < many <= exact * (1.0 + 1e-6)


def test_ascent_stays_in_the_ball():
    inside, outside = torch.tensor([0.03, 0.04]), torch.tensor([3.0, 4.0])

    assert torch.equal(perturbed_sharpness.within(inside, 0.1), inside)
    torch.testing.assert_close(perturbed_sharpness.within(outside, 0.1), torch.tensor([0.06, 0.08]))


def two_layer(scale):
    torch.manual_seed(0)
    first, second = (torch.randn(s, dtype=torch.float64) for s in ((8, 4), (1, 8)))
    x, y = torch.randn(32, 4, dtype=torch.float64), torch.randn(32, 1, dtype=torch.float64)
    params = [nn.Parameter(first * scale), nn.Parameter(second / scale)]
    probed = ProbeLoss(
        lambda: (torch.relu(x @ params[0].T) @ params[1].T - y).square().mean(), {"net": params}
    )
    return loss_regions(probed, per_module=False)[0]


def test_adaptive_sharpness_ignores_a_rescaling_that_leaves_the_function_alone():
    """Kwon et al. 2021, Theorem 1: relu(c W1), W2 / c is the same function for every c > 0."""
    plain, scaled = two_layer(1.0), two_layer(5.0)
    assert plain.value == pytest.approx(scaled.value, rel=1e-12)

    adaptive = [
        perturbed_sharpness.adaptive_sharpness(region, rho=0.05, eta=0.0)
        for region in (plain, scaled)
    ]
    ordinary = [sam_gap(region, rho=0.05) for region in (plain, scaled)]

    assert adaptive[0] == pytest.approx(adaptive[1], rel=1e-10)
    assert ordinary[1] > 2.0 * ordinary[0]


def test_normalised_sharpness_ignores_the_scale_of_whole_tensors():
    """Two linear layers, one times 7 and the other by 7: the same function."""
    plain, scaled = (two_layer(factor) for factor in (1.0, 7.0))

    found = [
        perturbed_sharpness.normalised_sharpness(region, rho=0.05) for region in (plain, scaled)
    ]
    plain_gaps = [sam_gap(region, rho=0.05) for region in (plain, scaled)]

    assert found[1] == pytest.approx(found[0], rel=1e-9)
    assert plain_gaps[1] > 2.0 * plain_gaps[0]


def test_the_normalised_eigenvalue_ignores_a_factor_of_weights_before_a_normalisation():
    """L(c w) = L(w), so that the Hessian is divided by c^2 and |w|^2 multiplied by it."""
    target = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)

    def row(factor):
        weight = nn.Parameter(factor * torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64))
        probed = ProbeLoss(
            lambda: (weight / weight.norm() - target).square().sum(), {"w": [weight]}
        )
        return SharpnessProbe(iterations=3, tolerance=0.0).measure(probed)

    one, ten = row(1.0), row(10.0)

    assert ten["lambda_max_normalised"] == pytest.approx(one["lambda_max_normalised"], rel=1e-9)
    assert ten["lambda_max"] == pytest.approx(one["lambda_max"] / 100.0, rel=1e-9)


def test_average_case_sharpness_of_a_quadratic_is_half_its_trace(generator):
    """E[L(w + e)] - L(w) = sigma^2 Tr(H) / 2 exactly, for any slope."""
    matrix = symmetric(6) + 5.0 * torch.eye(6, dtype=torch.float64)
    region = quadratic(matrix, [100.0] * 6)

    found = perturbed_sharpness.average_case_sharpness(
        region, sigma=0.1, pairs=2000, generator=generator
    )

    exact = 0.01 * float(matrix.trace()) / 2.0
    assert abs(found.mean - exact) <= 4.0 * found.standard_error
    assert found.standard_error < 0.05 * exact


def test_the_second_difference_of_a_quadratic_is_its_rayleigh_quotient():
    matrix = symmetric(5)
    region = quadratic(matrix, [1.0, 2.0, -1.0, 0.5, 3.0])
    g = region.gradient

    found = perturbed_sharpness.rayleigh(region, g, rho=0.3)

    assert found == pytest.approx(float(g @ matrix @ g / (g @ g)), rel=1e-10)


def test_first_order_flatness_of_a_quadratic_is_its_formula():
    matrix = symmetric(5)
    region = quadratic(matrix, [1.0, 2.0, -1.0, 0.5, 3.0])
    f = matrix @ region.gradient / region.gradient.norm()
    there = region.gradient + matrix @ (0.2 * f / f.norm())

    found = perturbed_sharpness.first_order_flatness(region, rho=0.2)

    assert found == pytest.approx(0.2 * float(there.norm()), rel=1e-10)


GRADIENTS = {
    "nan": (float("nan"), True),
    "infinite": (float("inf"), True),
    "squares overflow": (1e25, False),
    "squares underflow": (1e-30, False),
}


@pytest.mark.parametrize("kind", GRADIENTS)
def test_a_gradient_that_is_not_finite_gives_no_sharpness_of_zero(kind):
    """In float32 the square of 1e25 overflows, but a step of length rho along it exists."""
    entry, undefined = GRADIENTS[kind]

    step = ascent(torch.tensor([entry, 0.0, 0.0]), 0.5)

    if undefined:
        assert step.isnan().all()
    else:
        torch.testing.assert_close(step, torch.tensor([0.5, 0.0, 0.0]))
    assert ascent(torch.zeros(3), 0.5).tolist() == [0.0, 0.0, 0.0]


def test_nan_in_the_loss_is_nan_in_every_gap():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    probed = ProbeLoss(lambda: weight.square().sum() * float("nan"), {"all": [weight]})

    row = SharpnessProbe(gaps=[SamGaps(), WorstCaseSharpness(), AdaptiveSharpness()]).measure(
        probed
    )

    for name in (
        "sam_gap",
        "sam_gap_0.05",
        "worst_case_sharpness",
        "adaptive_sharpness",
        "lambda_max",
        "grad_norm",
    ):
        assert math.isnan(row[name]), name


def test_a_loss_that_is_maximised_is_measured_upside_down():
    """Descent then is ascent of L, so the sharpness is that of -L."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    probed = ProbeLoss(lambda: -0.5 * (torch.tensor([1.0, 4.0]) * weight**2).sum(), {"a": [weight]})

    row = SharpnessProbe(iterations=2, tolerance=0.0).measure(
        probed, optimizer=torch.optim.SGD([weight], lr=0.1, maximize=True)
    )

    assert row["lambda_max"] == pytest.approx(4.0)
    assert row["sam_gap"] > 0.0


def test_preconditioned_products_are_those_of_the_scaled_matrix(generator):
    matrix = symmetric(6)
    scales = torch.rand(6, dtype=torch.float64, generator=generator)

    product = preconditioned(matrix.__matmul__, scales)

    expected = torch.diag(scales.sqrt()) @ matrix @ torch.diag(scales.sqrt())
    torch.testing.assert_close(dense(product, 6), expected, rtol=1e-12, atol=1e-12)


def test_the_full_probe_adds_its_names_to_whole_and_modules(linear_agent, filled_replay):
    weights = linear_agent.parameters()
    linear_agent.optimizer = torch.optim.Adam(weights, lr=1e-3)
    for p in weights:
        p.grad = torch.ones_like(p)
    linear_agent.optimizer.step()
    linear_agent.optimizer.zero_grad()
    before = [p.clone() for p in weights]
    probe = SharpnessProbe(
        batch_size=8,
        heldout=True,
        curvature=[Trace(samples=2), Preconditioned()],
        gaps=[
            SamGaps(rhos=[0.1]),
            WorstCaseSharpness(steps=3),
            AdaptiveSharpness(),
            AverageCaseSharpness(pairs=2),
            AlongGradient(),
        ],
    )

    row = probe(linear_agent, filled_replay)

    names = {
        "trace", "trace_standard_error", "preconditioned", "preconditioned_threshold",
        "sam_gap_0.1", "curvature_gap_0.1", "worst_case_sharpness",
        "adaptive_sharpness", "average_case_sharpness",
        "average_case_sharpness_standard_error", "rayleigh", "first_order_flatness",
    }  # fmt: skip
    for prefix in ("", "dynamics/", "heldout/", "heldout/reward/"):
        assert {f"probe/sharpness/{prefix}{name}" for name in names} <= set(row)
    assert all(math.isfinite(value) for value in row.values())
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    assert all(p.grad is None for p in weights)


def test_without_a_known_optimizer_there_is_no_preconditioned_sharpness(generator):
    region = quadratic(symmetric(3), [1.0, 2.0, 3.0])

    assert Preconditioned()(region, Context(generator=generator)) == {}
    sgd = torch.optim.SGD([region.params[0]], lr=0.1)
    assert Preconditioned()(region, Context(generator=generator, optimizer=sgd)) == {}
