"""The replication judges what its plan lists, and nothing else."""

from collections import Counter

import pytest

from mbrl_flat.cli.main import compose_study
from mbrl_flat.studies.framework import TrialRow, TrialRows

STUDY = compose_study("experiment=central_claim_replication")
TEN_STEPS = "ten-step error of observations"


def rows(seeds=3):
    """Momentum-SAM: half the ten-step error and 20 more return; SAM: twice the value error."""
    factors = {"sam": {"value_error_0": 2.0}, "msam": {"state_error_last": 0.5}}
    metrics = ("state_error_1", "state_error_last", "value_error_0", "test_loss", "compounding")
    return TrialRows(
        [
            TrialRow(
                {
                    "episodes": episodes,
                    "variant": variant,
                    "seed": seed,
                    "generalisation_ratio": 2.0,
                }
                | {m: (0.05 + 0.001 * seed) * factors.get(variant, {}).get(m, 1.0) for m in metrics}
                | ({"test_loss": 1.0 / (40 - episodes)} if variant == "sam" else {})
                | {"train_lambda_max": 9.0 if variant == "adam_matched" else 3.0}
                | {f"return_{h}": 50.0 + seed + 20 * (variant == "msam") for h in (1, 3, 10)}
                | {f"plan_relative_bias_{k}": 0.1 for k in (3, 5, 10)}
            )
            for episodes in (7, 13, 27)
            for seed in range(seeds)
            for group in STUDY.groups
            for variant in group
        ]
    )


def test_claims_are_those_of_the_plan():
    claims = STUDY.claims(rows())

    assert Counter(claim.name for claim in claims) == {
        **{"G": 4, "C1": 2, "C2": 6, "C3": 2, "C4": 1, "C5": 6, "C6": 6, "C7": 4}
    }
    by_words = {claim.statement: claim for claim in claims}
    at = "Adam at equal evaluations"
    lower = by_words[f"msam is below {at}: {TEN_STEPS}"]
    assert (lower.verdict, lower.interval.point) == ("supported", pytest.approx(-50.0))
    assert by_words[f"sam is below {at}: RMSE of the value"].verdict == "contradicted"
    assert by_words[f"msam earns more than {at}, H = 3"].interval.point == pytest.approx(20.0)
    assert by_words[f"sam earns more than {at}, H = 3"].interval.point == 0.0
    shrinks = by_words["sam's advantage shrinks with data: held-out loss"]
    assert (shrinks.verdict, shrinks.interval.point) == ("supported", pytest.approx(1.0))


def test_without_trials_nothing_is_tested():
    assert {claim.verdict for claim in STUDY.claims(TrialRows())} == {"not tested"}
