"""The Gauss-Newton sharpness of cross entropies whose curvature is known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mbrl_flat.diagnostics.sharpness_measures import CategoricalGaussNewton
from mbrl_flat.diagnostics.sharpness_probe import SharpnessProbe
from mbrl_flat.interfaces import CategoricalLoss, ProbeLoss

CLOSELY = CategoricalGaussNewton(iterations=10, tolerance=1e-12)


def two_heads(coef=0.5, label=2):
    """Logits that are the weights themselves, beside a part of the loss that is not categorical."""
    reward = nn.Parameter(torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64))
    ended = nn.Parameter(torch.tensor([0.7, -0.2], dtype=torch.float64))
    other = nn.Parameter(torch.tensor([4.0], dtype=torch.float64))

    def outputs():
        return {"reward": reward, "ended": ended}

    def loss(logits):
        reward_ce = F.cross_entropy(logits["reward"], torch.tensor([label]))
        happened = torch.tensor([1.0, 0.0], dtype=torch.float64)
        return coef * reward_ce + F.binary_cross_entropy_with_logits(logits["ended"], happened)

    return ProbeLoss(
        loss=lambda: loss(outputs()) + 100.0 * other.square().sum(),
        modules={"reward": [reward], "ended": [ended], "other": [other]},
        categorical=CategoricalLoss(outputs, loss),
    )


def closed_forms(probed, coef=0.5):
    """Eigenvalues of ``c (diag(p) - p p^T)`` and ``s (1 - s) / 2``."""
    (reward,), (ended,), _ = probed.modules.values()
    p, s = reward.detach()[0].softmax(0), ended.detach().sigmoid()
    softmax = coef * (torch.diag(p) - torch.outer(p, p))
    return float(torch.linalg.eigvalsh(softmax)[-1]), float((s * (1.0 - s)).max() / 2.0)


def test_of_a_softmax_and_a_sigmoid_it_is_their_closed_form_of_the_whole_and_of_each_module():
    probed = two_heads()
    softmax, sigmoid = closed_forms(probed)

    row = SharpnessProbe(curvature=[CLOSELY]).measure(probed)

    assert row["reward/gauss_newton"] == pytest.approx(softmax, rel=1e-9)
    assert row["ended/gauss_newton"] == pytest.approx(sigmoid, rel=1e-9)
    assert row["gauss_newton"] == pytest.approx(max(softmax, sigmoid), rel=1e-9)


def test_what_is_not_categorical_has_no_part_in_it():
    row = SharpnessProbe(curvature=[CLOSELY]).measure(two_heads())

    assert row["other/gauss_newton"] == 0.0
    assert row["other/lambda_max"] == pytest.approx(200.0, rel=1e-9)
    assert row["gauss_newton"] < 1.0


def test_labels_do_not_move_it():
    rows = [SharpnessProbe(curvature=[CLOSELY]).measure(two_heads(label=k)) for k in (0, 2)]

    assert rows[0]["gauss_newton"] == pytest.approx(rows[1]["gauss_newton"], rel=1e-12)
    assert rows[0]["reward/grad_norm"] > 2.0 * rows[1]["reward/grad_norm"]


def test_the_whole_is_at_least_as_sharp_as_each_module_and_never_negative():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Mish(), nn.Linear(6, 5)).double()
    x, label = torch.randn(16, 4).double(), torch.randint(5, (16,))

    def loss(logits):
        return F.cross_entropy(logits["class"], label)

    probed = ProbeLoss(
        loss=lambda: loss({"class": net(x)}),
        modules={"first": list(net[0].parameters()), "last": list(net[2].parameters())},
        categorical=CategoricalLoss(lambda: {"class": net(x)}, loss),
    )

    probe = SharpnessProbe(curvature=[CategoricalGaussNewton(iterations=65, tolerance=1e-10)])
    row = probe.measure(probed)

    assert 0.0 < row["first/gauss_newton"] <= row["gauss_newton"] * (1.0 + 1e-9)
    assert 0.0 < row["last/gauss_newton"] <= row["gauss_newton"] * (1.0 + 1e-9)
    # The last layer is linear in its weights: its Hessian is its Gauss-Newton matrix.
    assert row["last/gauss_newton"] == pytest.approx(row["last/lambda_max"], rel=1e-3)


def test_of_a_loss_that_is_not_taken_apart_nothing_is_said():
    whole = two_heads()._replace(categorical=None)

    row = SharpnessProbe(curvature=[CLOSELY]).measure(whole)

    assert not any("gauss_newton" in name for name in row)
    assert "lambda_max" in row
