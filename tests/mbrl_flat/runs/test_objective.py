"""The metric that a search looks at."""

import re

import pytest
import torch

from mbrl_flat.cli import main as cli
from mbrl_flat.errors import UserError
from mbrl_flat.evaluation.evaluator import EpisodeEvaluator
from mbrl_flat.runs.objective import EVALUATION, check_objective
from mbrl_flat.runs.parts import build_agent


@pytest.mark.parametrize(
    "name",
    [
        "eval/return_mean",
        "eval/success_rate",
        "eval/walker-walk/return_mean",
        "probe/value/rmse",
        "train/total_loss",
        "probe/mine/anything",
    ],
)
def test_what_a_run_may_have_passes(name):
    check_objective(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("eval/retrun_mean", "did you mean 'eval/return_mean'"),
        ("eval/walker-walk/retrun_mean", "did you mean 'eval/walker-walk/return_mean'"),
        ("return_mean", "'eval/return_mean'"),
        ("evl/return_mean", "did you mean 'eval/return_mean'"),
        ("eval", "choose one of|did you mean"),
        ("", "choose one of: episode/..., eval/..., eval/length_mean"),
    ],
)
def test_what_no_run_can_have_is_refused(name, said):
    with pytest.raises(UserError, match=said) as caught:
        check_objective(name)

    assert str(caught.value).startswith(f"Unknown metric {name!r} for objective; ")


def test_the_metrics_of_an_evaluation_are_those_that_are_known():
    config, parts = cli.compose_run("env=dummy", "preset=debug", "seed=1")
    envs = parts.vectors.make_vector(parts.env, num_envs=1, seed=1)
    spec = parts.vectors.spec_of(envs)
    agent = build_agent(config, parts, spec, torch.device("cpu"))
    evaluation = EpisodeEvaluator(
        agent, envs, spec, episodes=1, seed=1, device=torch.device("cpu"), baseline=agent
    )

    row = evaluation(0)

    found = {name for name in row if re.match("eval/", name)}
    assert found <= {f"eval/{metric}" for metric in EVALUATION}
    assert len(found) >= 5
