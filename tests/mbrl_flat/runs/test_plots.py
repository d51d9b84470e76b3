import json
import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from mbrl_flat.analysis.plot_style import spans_orders
from mbrl_flat.errors import UserError
from mbrl_flat.runs.plots import draw_run, series

EVALUATION = {
    "eval/return_mean": 100.0,
    "eval/return_std": 5.0,
    "eval/random_return_mean": 20.0,
}
VALUE = {
    "probe/value/bias": -1.0,
    "probe/value/rmse": 2.0,
    "probe/value/rmse_normalised": 0.2,
    "probe/value/spearman": 0.9,
    "probe/planner/bias": 0.3,
}
SHARPNESS = {
    "probe/sharpness/lambda_max": 3.0,
    "probe/sharpness/sam_gap": 0.1,
    "probe/sharpness/encoder/lambda_max": 2.0,
    "probe/sharpness/dynamics/sam_gap": 0.05,
    "probe/sharpness/param_norm": 10.0,
}
LOSSES = {"train/total_loss": 1.0, "train/reward_loss": 0.4, "train/updates": 9.0}


@pytest.fixture
def make_run(tmp_path):
    def make(*rows):
        lines = [json.dumps({"step": s, "frame": 2 * s, "time": s, **r}) for s, r in rows]
        (tmp_path / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
        return tmp_path

    return make


def names(pictures):
    return [picture.name for picture in pictures]


def test_a_full_run_gets_all_four_pictures_and_none_is_blank(make_run):
    rows = [(s, EVALUATION | VALUE | SHARPNESS | LOSSES) for s in (0, 1000, 2000)]

    pictures = draw_run(make_run(*rows))

    assert names(pictures) == ["return.png", "value_error.png", "sharpness.png", "losses.png"]
    for picture in pictures:
        assert picture.parent.name == "plots"
        assert np.unique(imread(picture)).size > 10


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (EVALUATION, ["return.png"]),
        ({"eval/return_mean": 1.0}, ["return.png"]),
        ({"episode/return": 1.0}, ["return.png"]),
        ({"probe/value/bias": 1.0}, ["value_error.png"]),
        ({"probe/sharpness/encoder/lambda_max": 1.0}, ["sharpness.png"]),
        ({"optim/perturbed_gap": 1.0}, ["sharpness.png"]),
        ({"probe/bound/value_total": 9.0, "probe/bound/value_gap": 1.0}, ["bounds.png"]),
        ({"train/total_loss": 1.0}, ["losses.png"]),
        ({"train/updates": 1.0, "time/env": 2.0}, []),
        ({"eval/return_mean": None}, []),
    ],
)
def test_only_what_was_measured_is_drawn(make_run, metrics, expected):
    assert names(draw_run(make_run((1000, metrics)))) == expected


def test_a_run_that_was_just_started_has_no_pictures(make_run):
    assert draw_run(make_run()) == []


def test_drawing_leaves_no_temporary_file_and_no_global_setting(make_run):
    before = dict(mpl.rcParams)
    folder = make_run((0, EVALUATION))

    draw_run(folder)

    assert [path.name for path in (folder / "plots").iterdir()] == ["return.png"]
    assert dict(mpl.rcParams) == before


def test_a_series_keeps_the_finite_values_with_their_steps():
    rows = [{"step": 1, "a": 5.0}, {"step": 2, "b": 1.0}, {"step": 3, "a": math.nan}]

    steps, values = series([*rows, {"step": 4, "a": 7.0}], "a")

    assert steps.tolist() == [1, 4]
    assert values.tolist() == [5.0, 7.0]


def test_a_folder_without_metrics_is_named(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        draw_run(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 101.0], True),
        ([1.0, 100.0], False),
        ([0.0, 1e9], False),
        ([-1.0, 1e9], False),
        ([math.nan, 1.0, 1e3], True),
        ([math.nan], False),
        ([], False),
    ],
)
def test_only_positive_values_far_apart_get_a_logarithmic_axis(values, expected):
    assert spans_orders(np.array(values)) is expected
