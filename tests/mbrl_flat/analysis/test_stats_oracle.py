"""Aggregates, intervals and comparisons agree with rliable, the code of arXiv:2108.13264."""

import importlib
import importlib.util
import sys
import types
import warnings

import numpy as np
import pytest

from mbrl_flat.analysis.stats import iqm, mean, probability_of_improvement, stratified_bootstrap

SEEDS, TASKS = 10, 6


@pytest.fixture(scope="module")
def rliable():
    """The two modules that are needed; what they import has warnings of its own."""
    spec = importlib.util.find_spec("arch")
    assert spec is not None
    # Of arch only the bootstrap is used; its volatility models fail on current pandas.
    package = types.ModuleType("arch")
    package.__path__ = list(spec.submodule_search_locations or [])
    patch = pytest.MonkeyPatch()
    patch.setitem(sys.modules, "arch", package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield (
            importlib.import_module("rliable.library"),
            importlib.import_module("rliable.metrics"),
        )
    patch.undo()


@pytest.fixture
def scores():
    """``[N, M]``: seeds by tasks, tasks of unlike scale."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(SEEDS, TASKS)) * np.arange(1, TASKS + 1) + np.arange(TASKS)


def test_the_interquartile_mean_is_rliables(rliable, scores):
    assert float(iqm(scores.ravel())) == pytest.approx(rliable[1].aggregate_iqm(scores), rel=1e-12)


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")
@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_the_stratified_interval_is_rliables_up_to_resampling(rliable, scores, statistic):
    library, metrics = rliable
    ours = {"mean": mean, "iqm": iqm}[statistic]
    theirs = {"mean": metrics.aggregate_mean, "iqm": metrics.aggregate_iqm}[statistic]

    points, bounds = library.get_interval_estimates(
        {"method": scores},
        lambda x: np.array([theirs(x)]),
        reps=4000,
        random_state=np.random.RandomState(0),
    )
    found = stratified_bootstrap(
        list(scores.T), ours, rng=np.random.default_rng(0), num_resamples=4000
    )

    width = float(bounds["method"][1, 0] - bounds["method"][0, 0])
    assert found.point == pytest.approx(float(points["method"][0]), rel=1e-12)
    assert found.low == pytest.approx(float(bounds["method"][0, 0]), abs=0.06 * width)
    assert found.high == pytest.approx(float(bounds["method"][1, 0]), abs=0.06 * width)


def test_the_probability_of_improvement_is_rliables(rliable, scores):
    other = scores + np.random.default_rng(1).normal(size=scores.shape)
    by_task = [probability_of_improvement(a, b) for a, b in zip(scores.T, other.T, strict=True)]

    expected = rliable[1].probability_of_improvement(scores, other)

    assert np.mean(by_task) == pytest.approx(float(expected), rel=1e-12)


def test_ties_count_half_as_in_rliable(rliable):
    x, y = np.array([[1.0], [2.0], [2.0]]), np.array([[2.0], [2.0], [0.0]])

    expected = rliable[1].probability_of_improvement(x, y)

    assert probability_of_improvement(x[:, 0], y[:, 0]) == pytest.approx(float(expected))
