"""The small presets of the studies of weight decay and of variational learning."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mbrl_flat.analysis.stats import t_interval
from mbrl_flat.diagnostics.preconditioned import step_scales, threshold
from mbrl_flat.errors import UserError
from mbrl_flat.optim import make_optimizer
from mbrl_flat.studies.experiments.full_batch import FullBatchDigits, follow
from mbrl_flat.studies.experiments.variational_eos import Noise, VariationalEos
from mbrl_flat.studies.experiments.variational_report import make_claims
from mbrl_flat.studies.experiments.weight_decay_eos import DecaySweep, WeightDecayEos
from mbrl_flat.studies.framework import run_study
from mbrl_flat.studies.framework.rows import TrialRow, TrialRows
from mbrl_flat.studies.training import Recipe

SMALL = FullBatchDigits(size=120, hidden=(16,))


@pytest.fixture(scope="module")
def variational(tmp_path_factory):
    study = VariationalEos(
        samples=(1, 4),
        draws=100_000,
        task=replace(SMALL, size=200),
        noises=(
            Noise(),
            Noise(sigma=0.02),
            Noise(sigma=0.04),
            Noise(sigma=0.02, samples=4),
        ),
        steps=400,
        vit=FullBatchDigits(size=20, network="vit", width=8),
        vit_noises=(Noise(), Noise(sigma=0.01)),
        vit_steps=60,
        temperatures=(1e3,),
        seeds=1,
        every=25,
    )
    return study, run_study(study, tmp_path_factory.mktemp("variational"), command="test").rows


def test_simulated_thresholds_are_within_two_percent(variational):
    study, rows = variational

    assert all(abs(ratio - 1.0) < 0.02 for ratio in rows.where(kind="quadratic").values("ratio"))
    assert {c.name: c.verdict for c in study.claims(rows)}["V1"] == "supported"


@pytest.mark.parametrize("settings", [[0.01], [0.01, 0.02, 0.04], [0.01] * 9])
def test_settings_of_one_seed_are_not_taken_for_seeds(settings):
    """However many settings there are, the interval is that of the seeds' means."""
    of_seed = {0: 0.9, 1: 1.0, 2: 1.2}
    rows = [
        TrialRow(
            kind="mlp", dof=None, sigma=s, samples=1, seed=seed, over_threshold=ratio + 0.1 * s
        )
        for seed, ratio in of_seed.items()
        for s in settings
    ]

    (claim,) = [c for c in make_claims(TrialRows(rows)) if c.name == "V5"]

    means = [ratio + 0.1 * np.mean(settings) for ratio in of_seed.values()]
    assert claim.num_seeds == 3
    np.testing.assert_allclose(claim.interval, t_interval(means), rtol=1e-12)


def test_the_sharpness_is_ordered_in_sigma_and_in_samples(variational):
    _, rows = variational
    noisy = rows.where(kind="mlp", dof=None)

    (still,) = noisy.where(sigma=0.0).values("sharpness")
    by_sigma = [noisy.where(sigma=s, samples=1).values("sharpness")[0] for s in (0.02, 0.04)]
    by_samples = [noisy.where(sigma=0.02, samples=n).values("sharpness")[0] for n in (1, 4)]

    assert still > by_sigma[0] > by_sigma[1]
    assert by_samples[0] < by_samples[1] < still
    assert abs(still - 1.0) < 0.05
    # Where it settles is what the theorem for quadratics says of these networks.
    assert all(0.8 < ratio < 1.25 for ratio in noisy.values("over_threshold"))


def test_the_report_is_complete(variational):
    study, rows = variational

    assert {"V1", "V2", "V3a", "V3b", "V4a", "V7a", "V7b", "V9"} <= {
        claim.name for claim in study.claims(rows)
    }
    assert set(study.figures(rows)) == {"sharpness", "descent_maps"}


@pytest.fixture(scope="module")
def decayed(tmp_path_factory):
    study = WeightDecayEos(
        sweeps={
            "mlp": DecaySweep(task=SMALL, steps=240, weight_decays=(0.0, 0.001, 0.005, 0.02, 0.05)),
            "cnn": DecaySweep(
                task=FullBatchDigits(size=20, network="cnn", channels=(2, 2)),
                steps=120,
                weight_decays=(0.0, 0.02),
            ),
            "mlp_layer_norm": DecaySweep(
                task=replace(SMALL, norm="layer"), lr=0.05, steps=120, weight_decays=(0.0, 0.005)
            ),
        },
        only=("mlp", "cnn", "mlp_layer_norm"),
        seeds=1,
        every=10,
        probes=6,
    )
    return study, run_study(study, tmp_path_factory.mktemp("decayed"), command="test").rows


def test_weight_decay_slows_sharpening_and_shrinks_the_weights(decayed):
    _, rows = decayed
    runs = rows.where(sweep="mlp")
    early = [runs.where(weight_decay=d).values("sharpness_10")[0] for d in (0.0, 0.02, 0.05)]
    norms = [runs.where(weight_decay=d).values("weight_norm_end")[0] for d in (0.0, 0.02, 0.05)]

    assert early[0] > early[1] > early[2]
    assert norms[0] > norms[1] > norms[2]


def test_every_claim_and_picture_of_the_paper_is_there(decayed):
    study, rows = decayed

    names = {claim.name for claim in study.claims(rows)}
    assert {"W1a", "W2", "W3a", "W3b", "W4", "W5a", "W5b", "W6", "W7", "D1", "D2"} <= names
    assert all(c.num_seeds == 1 for c in study.claims(rows) if c.name in ("D3", "D4"))
    assert set(study.figures(rows)) == {"sharpness", "plateau", "drift"}


def test_the_weights_ahead_of_a_normalisation_pull_between_zero_and_minus_two_sharpnesses(decayed):
    _, rows = decayed
    pulls = rows.where(sweep="mlp_layer_norm").values("kappa_normalised_over_sharpness")

    assert len(pulls) == 2
    assert all(-2.0 < pull < 0.0 for pull in pulls)
    assert not rows.where(sweep="mlp").values("kappa_normalised_over_sharpness")


def test_noise_of_size_zero_is_gradient_descent_bit_for_bit():
    settings = {
        "lr": 0.2, "momentum": 0.0, "epochs": 20, "batch_size": None, "schedule": "constant",
        "loss": "squared",
    }  # fmt: skip

    plain = follow(SMALL, Recipe(optimizer="sgd", **settings), seed=0, every=5)
    still = follow(
        SMALL, Recipe(optimizer="vgd", settings={"sigma": 0.0}, **settings), seed=0, every=5
    )

    assert plain.curves == still.curves


def test_the_scales_of_ivon_are_those_of_its_step():
    """The gradient of a linear loss is the same wherever the noise puts the weights."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    slope = torch.tensor([3.0, 0.5], dtype=torch.float64)
    optimizer = make_optimizer(
        "ivon", [weight], lr=0.3, betas=(0.0, 0.9), hess_init=2.0, weight_decay=0.0, ess=100.0
    )

    def closure():
        optimizer.zero_grad()
        loss = (slope * weight).sum()
        loss.backward()
        return loss

    before = weight.detach().clone()
    optimizer.step(closure)
    scales = step_scales(optimizer.base, [weight])

    assert scales is not None
    torch.testing.assert_close(before - weight.detach(), scales * slope, rtol=1e-12, atol=0.0)
    np.testing.assert_allclose(threshold(optimizer.base), 2.0)


def test_unknown_networks_and_sweeps_get_the_nearest_names():
    with pytest.raises(UserError, match="did you mean 'mlp'"):
        FullBatchDigits(network="mpl").model(0)
    with pytest.raises(UserError, match="did you mean 'mlp_depth_1'"):
        WeightDecayEos(sweeps={"mlp_depth_1": DecaySweep()}, only=("mlp_depth1",))
