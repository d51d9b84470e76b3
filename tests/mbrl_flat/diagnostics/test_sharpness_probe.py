"""Sharpness in closed form, and a probe that changes nothing and resumes exactly."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mbrl_flat.diagnostics.probe import NothingToMeasure
from mbrl_flat.diagnostics.sharpness import ascent, loss_at, loss_regions, norms, sam_gap
from mbrl_flat.diagnostics.sharpness_probe import SharpnessProbe
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Inspectable, ProbeLoss
from mbrl_flat.runtime.seeding import rng_state

QUANTITIES = {
    "lambda_max_normalised",
    "sam_gap",
    "first_order",
    "grad_norm",
    "param_norm",
    "lambda_max",
    "lambda_min",
}


def quadratic(spectrum, weight, split):
    """The loss ``w^T H w / 2`` of a diagonal ``H``, its weights shared out to two modules."""
    diagonal = torch.tensor(spectrum, dtype=torch.float64)
    parts = [
        nn.Parameter(torch.tensor(part, dtype=torch.float64))
        for part in (weight[:split], weight[split:])
    ]
    return ProbeLoss(
        lambda: 0.5 * (diagonal * torch.cat(parts).square()).sum(),
        {"first": [parts[0]], "second": [parts[1]]},
    )


def test_every_quantity_of_a_quadratic_has_its_closed_form():
    """L(w + rho g/|g|) - L(w) = rho |g| + rho^2 g^T H g / (2 |g|^2)."""
    probed = quadratic([-2.0, 1.0, 5.0, 0.5], [1.0, 2.0, 3.0, -4.0], split=2)
    grad = torch.tensor([-2.0, 2.0, 15.0, -2.0], dtype=torch.float64)
    hessian = torch.tensor([-2.0, 1.0, 5.0, 0.5], dtype=torch.float64)

    row = SharpnessProbe(rho=0.1, iterations=4, tolerance=1e-12).measure(probed)

    for prefix, part in (("", slice(0, 4)), ("first/", slice(0, 2)), ("second/", slice(2, 4))):
        g, h = grad[part], hessian[part]
        first = 0.1 * float(g.norm())
        gap = first + 0.01 * float((g * h * g).sum() / g.square().sum()) / 2.0
        assert row[prefix + "first_order"] == pytest.approx(first, rel=1e-12)
        assert row[prefix + "sam_gap"] == pytest.approx(gap, rel=1e-10)
        assert row[prefix + "grad_norm"] == pytest.approx(float(g.norm()), rel=1e-12)
        assert row[prefix + "lambda_max"] == pytest.approx(float(h.max()), rel=1e-9)
        assert row[prefix + "lambda_min"] == pytest.approx(float(h.min()), rel=1e-9)
    assert row["param_norm"] == pytest.approx(30.0**0.5, rel=1e-12)
    assert row["second/param_norm"] == pytest.approx(5.0, rel=1e-12)


def test_at_a_minimum_the_gap_is_zero_without_a_direction():
    probed = quadratic([1.0, 2.0], [0.0, 0.0], split=1)

    (whole,) = loss_regions(probed, per_module=False)

    assert sam_gap(whole, rho=0.1) == 0.0
    assert norms(whole, rho=0.1)["first_order"] == 0.0


def test_the_ascent_step_has_the_length_asked_for():
    gradient = torch.tensor([3.0, -4.0], dtype=torch.float64)

    assert ascent(gradient, 0.5).tolist() == pytest.approx([0.3, -0.4], rel=1e-12)
    assert ascent(torch.zeros(2), 0.5).tolist() == [0.0, 0.0]


def test_looking_elsewhere_leaves_the_weights_where_they_are():
    probed = quadratic([1.0, 2.0], [0.3, 0.7], split=1)
    (whole,) = loss_regions(probed, per_module=False)
    before = [p.clone() for p in whole.params]

    value = loss_at(whole, torch.tensor([0.7, -0.7], dtype=torch.float64))

    assert value == pytest.approx(0.5, rel=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(before, whole.params, strict=True))


def test_names_are_those_of_the_interface(linear_agent, filled_replay):
    assert isinstance(linear_agent, Inspectable)

    row = SharpnessProbe(batch_size=8, heldout=True)(linear_agent, filled_replay)

    parts = ["", "dynamics/", "reward/"]
    assert set(row) == {
        f"probe/sharpness/{kind}{part}{name}"
        for kind in ("", "heldout/")
        for part in parts
        for name in QUANTITIES
    }
    assert all(isinstance(value, float) for value in row.values())


def test_modules_and_heldout_episodes_are_left_out_unless_asked_for(linear_agent, filled_replay):
    row = SharpnessProbe(batch_size=8, per_module=False)(linear_agent, filled_replay)

    assert set(row) == {f"probe/sharpness/{name}" for name in QUANTITIES}


def test_the_eigenvalues_are_those_of_the_dense_hessian(linear_agent, filled_replay):
    batch = filled_replay.sample(8, 3, rng=np.random.default_rng(0))
    probed = linear_agent.probe_loss(batch)
    params = linear_agent.parameters()
    (whole,) = loss_regions(probed, per_module=False)
    dense = torch.stack([whole.product(row) for row in torch.eye(24, dtype=torch.float64)])
    torch.testing.assert_close(dense, dense.T, rtol=0.0, atol=1e-12)

    row = SharpnessProbe(iterations=24, tolerance=1e-10).measure(probed)

    values = torch.linalg.eigvalsh(dense)
    blocks = torch.linalg.eigvalsh(dense[:18, :18]), torch.linalg.eigvalsh(dense[18:, 18:])
    assert sum(p.numel() for p in params) == 24
    assert row["lambda_max"] == pytest.approx(float(values[-1]), rel=1e-8)
    assert row["lambda_min"] == pytest.approx(float(values[0]), abs=1e-8)
    assert row["dynamics/lambda_max"] == pytest.approx(float(blocks[0][-1]), rel=1e-8)
    assert row["reward/lambda_max"] == pytest.approx(float(blocks[1][-1]), rel=1e-8)
    # Interlacing: a block is never sharper than the whole.
    assert max(float(b[-1]) for b in blocks) <= row["lambda_max"] + 1e-9


def test_nothing_of_the_agent_the_replay_or_the_streams_moves(linear_agent, filled_replay):
    linear_agent.reward.weight.requires_grad_(False)
    (linear_agent.dynamics.weight.sum() * 2.0).backward()
    weights = [p.clone() for p in linear_agent.parameters()]
    grads = [p.grad for p in linear_agent.parameters()]
    state, replay_state = rng_state(), copy.deepcopy(filled_replay.state_dict())

    SharpnessProbe(batch_size=8, heldout=True)(linear_agent, filled_replay)

    assert all(torch.equal(a, b) for a, b in zip(weights, linear_agent.parameters(), strict=True))
    assert all(p.grad is g for p, g in zip(linear_agent.parameters(), grads, strict=True))
    assert linear_agent.dynamics.weight.grad.unique().tolist() == [2.0]
    assert [p.requires_grad for p in linear_agent.parameters()] == [True, True, False, True]
    after = rng_state()
    assert torch.equal(state["torch"], after["torch"])
    assert state["python"] == after["python"]
    assert torch.equal(state["numpy"][1], after["numpy"][1])
    assert replay_state == filled_replay.state_dict()


def test_a_resumed_probe_gives_the_same_values_bit_by_bit(linear_agent, filled_replay, tmp_path):
    probe = SharpnessProbe(batch_size=8, heldout=True, iterations=3, seed=5)
    probe(linear_agent, filled_replay)
    torch.save(probe.state_dict(), tmp_path / "probe.pt")
    expected = [probe(linear_agent, filled_replay) for _ in range(2)]

    torch.manual_seed(77)
    resumed = SharpnessProbe(batch_size=8, heldout=True, iterations=3, seed=6)
    resumed.load_state_dict(torch.load(tmp_path / "probe.pt", weights_only=True))

    assert [resumed(linear_agent, filled_replay) for _ in range(2)] == expected


def test_values_do_not_depend_on_the_global_streams(linear_agent, filled_replay):
    torch.manual_seed(1)
    first = SharpnessProbe(batch_size=8)(linear_agent, filled_replay)
    torch.manual_seed(2)

    assert SharpnessProbe(batch_size=8)(linear_agent, filled_replay) == first


def test_the_row_is_empty_until_an_episode_is_long_enough(linear_agent, empty_replay):
    probe = SharpnessProbe(heldout=True)
    before = copy.deepcopy(probe.state_dict()["rng"])

    with pytest.raises(NothingToMeasure, match="no 3 transitions in a row in episodes"):
        probe(linear_agent, empty_replay)
    assert probe.state_dict()["rng"] == before


def test_an_agent_without_a_sequence_length_needs_the_setting(linear_agent, filled_replay):
    class Silent:
        discount = 0.9

        def __getattr__(self, name):
            if name == "sequence_length":
                raise AttributeError(name)
            return getattr(linear_agent, name)

    match = r"Silent does not state .* set the probe's sequence_length"
    with pytest.raises(UserError, match=match):
        SharpnessProbe()(Silent(), filled_replay)

    assert SharpnessProbe(batch_size=4, sequence_length=2)(Silent(), filled_replay)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("batch_size", 0), ("rho", 0.0), ("iterations", 0), ("tolerance", -1.0)],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(UserError, match=f"{setting} must be .*, got {value}"):
        SharpnessProbe(**{setting: value})
