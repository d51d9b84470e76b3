import math

import pytest

from mbrl_flat.evaluation.reference_scores import load_references, reference_curves, score_scale


def test_every_published_score_is_a_number_with_a_source():
    for score in load_references():
        assert math.isfinite(score.mean)
        assert score.frame > 0
        assert "/" in score.source


def test_no_score_is_listed_twice():
    keys = [(score.task, score.method, score.frame) for score in load_references()]

    assert len(keys) == len(set(keys))


def test_a_curve_goes_forward_in_frames():
    curve = reference_curves("dmc", "dog-run")["tdmpc2"]

    assert [score.frame for score in curve] == sorted(score.frame for score in curve)
    assert len(curve) > 1


def test_hyphens_and_underscores_are_the_same():
    curves = reference_curves("dmc", "cartpole-balance_sparse")

    assert curves
    assert curves == reference_curves("dmc", "cartpole-balance-sparse")


def test_every_atari_game_has_both_ends_of_the_human_scale():
    curves = [reference_curves(s.env, s.task) for s in load_references() if s.method == "human"]

    assert len(curves) == 26
    assert all("random" in curve for curve in curves)


def test_an_unknown_task_has_no_references():
    assert reference_curves("dmc", "no-such-task") == {}


def test_scales_are_human_on_games_and_the_largest_return_on_the_suite():
    game, walker = score_scale("atari", "alien"), score_scale("dmc", "walker-walk")

    assert game is not None
    assert walker is not None
    assert (game.random, game.reference) == (227.8, 7127.7)
    assert (walker.random, walker.reference) == (0.0, 1000.0)
    assert score_scale("gym", "Pendulum-v1") is None


def test_another_familys_task_of_the_same_name_has_no_share_in_the_scores():
    assert reference_curves("atari", "breakout")
    assert reference_curves("minatar", "breakout") == {}
    assert score_scale("minatar", "breakout") is None


def test_an_experts_scale_runs_from_the_random_policy_to_its_last_published_score():
    last = reference_curves("dmc", "dog-run")["tdmpc2"][-1].mean

    found = score_scale("dmc", "dog-run", expert="tdmpc2", random=5.0)

    assert found is not None
    assert (found.random, found.reference) == (5.0, last)
    assert score_scale("dmc", "dog-run", expert="diamond") is None


@pytest.mark.parametrize("task", ["ball_in_cup-catch", "cup-catch", "ball-in-cup-catch"])
def test_published_curves_are_found_by_every_spelling(task):
    assert reference_curves("dmc", task).keys() == reference_curves("dmc", "cup-catch").keys()
    assert "tdmpc2" in reference_curves("dmc", task)
