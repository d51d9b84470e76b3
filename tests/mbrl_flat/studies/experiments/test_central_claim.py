"""The study of when a flat world model helps: order of trials, points, claims."""

import math

import numpy as np
import pytest
import torch

from mbrl_flat.analysis.plot_style import save_figure
from mbrl_flat.cli.main import compose_study
from mbrl_flat.errors import UserError
from mbrl_flat.studies.experiments.central_claim import CentralClaim, Variant
from mbrl_flat.studies.experiments.central_claim_control import control_claims
from mbrl_flat.studies.experiments.central_claim_report import central_claims, is_dose
from mbrl_flat.studies.framework import TrialRow, TrialRows
from mbrl_flat.studies.offline.fitting import build_optimizer, fit
from mbrl_flat.studies.offline.recording import Recording
from mbrl_flat.studies.offline.task import OfflineTask, build_model

SMALL = {"size": 8, "num_layers": 1, "num_heads": 2, "context": 2, "batch_size": 4}
PATH = "mbrl_flat.studies.offline.vector_transformer.VectorTransformer"


def study(tmp_path, **changes):
    recording = Recording(
        env="mbrl_flat.envs.dummy.make",
        task="point",
        episodes=6,
        length=24,
        tail=4,
        folder=str(tmp_path),
    )
    task = OfflineTask(recording=recording, pool=3, validation=1, train=2, horizon=3)
    settings = {"task": task, "model": PATH, "settings": SMALL, "episodes": (2,), "seeds": 2}
    settings["variants"] = compose_study("experiment=central_claim").variants
    settings |= {"groups": (("adam_matched", "sam"), ("adam",)), "evaluations": 8, "points": (4, 8)}
    return CentralClaim(**{**settings, **changes})


def test_groups_come_one_after_the_other_and_seed_by_seed(tmp_path):
    trials = [(t["variant"], t["seed"]) for t in study(tmp_path).cells(TrialRows())]

    assert trials == [
        *(("adam_matched", 100), ("sam", 100), ("adam_matched", 101), ("sam", 101)),
        *(("adam", 100), ("adam", 101)),
    ]


@pytest.mark.parametrize(
    ("variant", "spent", "stops"),
    [("adam_matched", (8, 8), {4, 8}), ("sam", (4, 8), {4, 8}), ("adam", (4, 4), {2, 4})],
)
def test_a_trial_measures_along_the_training_and_at_the_best_point(tmp_path, variant, spent, stops):
    ours = study(tmp_path)
    row = ours.measure({"episodes": 2, "variant": variant, "seed": 100})

    assert (row["updates"], row["evaluations"]) == spent
    assert row["curve_test_loss"][-1] == row["test_loss"]
    assert row["stopped_at"] in stops
    best = int(np.argmin(row["curve_validation_score"]))
    assert row["stopped_test_loss"] == row["curve_test_loss"][best]
    assert row["generalisation_ratio"] == pytest.approx(
        row["test_loss"] / row["train_loss"], rel=1e-5
    )
    assert math.isfinite(row["train_module_scaled_lambda"])


def test_measuring_along_the_way_leaves_the_training_alone(tmp_path):
    ours = study(tmp_path)
    data = ours.task.split(0)["train"]
    weights = []
    for points in ((), (2, 4, 8)):
        model = build_model(PATH, SMALL, data, seed=0)
        optimizer = build_optimizer(model, "sam", lr=1e-3, rho=0.1)
        seen = []
        torch.manual_seed(7)
        fit(
            model,
            data,
            optimizer,
            evaluations=8,
            seed=0,
            points=points,
            at_point=lambda point: seen.append((point, float(torch.rand(())))),  # noqa: B023
        )
        weights.append([p.detach().clone() for p in model.parameters()])
        assert [point for point, _ in seen] == list(points)

    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def rows_of(advantage):
    """Ten seeds; the variant's errors over Adam's, by variant."""
    rng = np.random.default_rng(0)
    return TrialRows(
        [
            TrialRow(
                episodes=80,
                variant=variant,
                seed=seed,
                test_loss=ratio * (1.0 + 0.01 * rng.normal()),
                state_error_last=0.6 * ratio,
                state_error_1=0.05,
                value_error_0=0.3,
                generalisation_ratio=1.5,
                train_lambda_max=10.0 * ratio,
                curve_test_loss=[1.0, ratio],
                curve_state_error_last=[1.0, ratio],
            )
            for seed in range(10)
            for variant, ratio in advantage.items()
        ]
    )


def test_claims_follow_the_plan():
    rows = rows_of(
        {"adam_matched": 1.0, "adam": 1.0, "sam_0.01": 0.95, "sam": 0.9, "sam_0.05": 0.85}
    )
    radii = {"adam": 0.0, "adam_matched": 0.0, "sam_0.01": 0.01, "sam": 0.02, "sam_0.05": 0.05}

    found = central_claims(rows, radii)

    verdicts = {(claim.name, claim.statement): claim.verdict for claim in found}
    at = "sam is below Adam at equal evaluations: "
    assert verdicts["G", "Adam is good enough: one-step error of observations, share of the "
                         "variance"] == "supported"  # fmt: skip
    assert verdicts["G", "Adam is good enough: ten-step error of observations, share of the "
                         "variance"] == "contradicted"  # fmt: skip
    assert verdicts["H1a", at + "held-out loss"] == "supported"
    assert verdicts["H4a", "falls with rho: ten-step error of observations"] == "supported"
    assert verdicts["H6", "flatter variants predict better: largest Hessian eigenvalue"] == (
        "supported"
    )
    growth = next(c for c in found if c.name == "H1b" and "ten-step" in c.statement)
    assert growth.interval.point == pytest.approx(math.log(0.9))
    (change,) = [c for c in found if c.statement == at + "ten-step error of observations"]
    assert change.interval.point == pytest.approx(-10.0)
    assert {claim.verdict for claim in central_claims(TrialRows(), radii)} == {"not tested"}


def test_doses_are_sam_on_all_modules():
    names = ("adam", "sam", "sam_0.005", "sam_dynamics", "msam", "adam_matched")
    assert [is_dose(name) for name in names] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (("smm",),)}, "did you mean 'sam'"),
        ({"points": (8, 4)}, "points must increase up to evaluations=8"),
        ({"episodes": (9,)}, "episodes must be at most pool=3"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        study(tmp_path, **changes)


def test_weight_decay_and_modules_are_variants(tmp_path):
    variants = {
        "decay": Variant(method="adamw", settings={"weight_decay": 0.1}),
        "part": Variant(method="sam", rho=0.1, settings={"only": ["reward"]}),
        "adam_matched": Variant(),
    }
    ours = study(tmp_path, variants=variants, groups=(tuple(variants),))
    rows = {name: ours.measure({"episodes": 2, "variant": name, "seed": 100}) for name in variants}

    losses = {row["test_loss"] for row in rows.values()}
    assert len(losses) == 3
    assert rows["decay"]["train_param_norm"] < rows["adam_matched"]["train_param_norm"]


@pytest.mark.parametrize("variants", [("adam_matched",), ("sam", "adam")])
def test_a_study_that_stopped_early_is_drawn(variants, tmp_path):
    ours = study(tmp_path, groups=(variants,), seeds=1)
    rows = TrialRows(TrialRow(cell | ours.measure(cell)) for cell in ours.cells(TrialRows()))

    for name, figure in ours.figures(rows).items():
        save_figure(figure, tmp_path / f"{name}.png")


def played_rows():
    """Five seeds: SAM earns 10 more than Adam at H = 1 and 40 more at H = 10."""
    gain = {"adam_matched": 0.0, "adam": 0.0, "random_direction": 0.0, "sam": 1.0}
    return TrialRows(
        [
            TrialRow(
                {"episodes": 2, "variant": variant, "seed": seed}
                | {f"return_{h}": 100.0 + seed + (7.0 + 3 * h) * g for h in (1, 3, 10)}
                | {f"plan_relative_bias_{k}": 0.1 * k - 0.01 * g * (1 + seed) for k in (3, 5, 10)}
                | {"return_action_noise_0.4": 50.0 + seed / 2.0 - 10 * g - seed * 0.01 * g}
                | {"train_lambda_max": 10.0 - g, "state_error_last": 1.0 + g}
            )
            for seed in range(5)
            for variant, g in gain.items()
        ]
    )


def test_control_is_judged_by_differences_on_the_same_seed():
    claims = control_claims(played_rows())
    by_words = {claim.statement: claim for claim in claims}
    than = "than Adam at equal evaluations"

    for h in (1, 3, 10):
        claim = by_words[f"sam earns more {than}, H = {h}"]
        assert claim.verdict == "supported"
        assert claim.interval.point == pytest.approx(7.0 + 3 * h)
    assert by_words[f"sam gains more by longer plans {than}"].interval.point == pytest.approx(27.0)
    exploited = by_words[f"sam's model is exploited less {than}, k = 5"]
    assert exploited.verdict == "supported"
    assert exploited.interval.point == pytest.approx(-0.03)
    assert by_words[f"sam keeps more of its return {than}: action noise"].verdict == "contradicted"
    unplayed = by_words[f"sam keeps more of its return {than}: observation noise"]
    assert unplayed.verdict == "not tested"
    flat = by_words["models with less of it earn more: largest Hessian eigenvalue"]
    assert flat.interval.point == pytest.approx(-1.0)
    assert flat.verdict == "supported"


def test_models_that_were_not_played_have_no_claims_of_control():
    assert control_claims(TrialRows([TrialRow({"variant": "sam", "seed": 0})])) == []
