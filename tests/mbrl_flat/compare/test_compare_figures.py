"""The charts of a report: lines, scales, legends and the files they are in."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mbrl_flat.compare.curves import Curve
from mbrl_flat.compare.figures import _band
from mbrl_flat.compare.svg import WIDTH, Scale


def test_thin_lines_of_seeds_end_where_the_chart_ends(make_run, compare, out):
    """One of three seeds is longer than the others, where there is no mean; so does its line."""
    for seed in range(3):
        make_run("sam", seed=seed, returns=(0, 1, 2, 50, 90)[: 3 + 2 * (seed == 0)])

    compare()

    page = (out / "index.html").read_text()
    thin = re.findall(r'class="seed" d="M([^"]+)"', page)
    places = [[*map(float, point.split())] for line in thin for point in line.split("L")]
    assert len(thin) == 6, "by steps and by hours"
    assert max(x for x, _ in places) <= WIDTH - 14
    assert min(y for _, y in places) < 46, "the height is that of what is drawn"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1000.0, [0, 200, 400, 600, 800, 1000]), (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1])],
)
def test_ticks_are_round_numbers_within_the_range(low, high, expected):
    np.testing.assert_allclose(Scale(low, high, 0.0, 1.0).ticks(), expected, atol=1e-12)


def test_a_logarithmic_scale_has_powers_of_ten_at_equal_distances():
    scale = Scale(1.0, 1000.0, 0.0, 300.0, log=True)

    assert scale.ticks() == [1.0, 10.0, 100.0, 1000.0]
    np.testing.assert_allclose(scale(np.array(scale.ticks())), [0, 100, 200, 300], atol=1e-9)


def test_figures_of_an_earlier_report_do_not_stay(make_run, compare, out):
    (out).mkdir()
    stale, own = out / "sharpness.png", out / "notes.png"
    for file in (stale, own):
        file.write_bytes(b"")
    make_run()

    assert compare() == 0
    assert not stale.exists()
    assert own.exists()


def test_every_label_of_a_figure_is_in_its_legend(make_run, compare, out):
    """Also that of a group which has runs on the second task alone."""
    make_run("adam", task="dog-run")
    make_run("sam", task="dog-trot")
    make_run("ivon", task="dog-trot", seed=1, settings={"note": "$a_{$"})

    assert compare() == 0
    drawn = (out / "return.svg").read_text(encoding="utf-8")
    assert all(f">{name}<" in drawn for name in ("Adam", "SAM", "IVON"))
    ET.fromstring(drawn)


def test_every_chart_is_on_the_page(make_run, compare, out):
    bounds = {"probe/bound/value_total": 1.0, "probe/bound/value_gap": 0.5}
    make_run(metrics=bounds)

    assert compare() == 0
    assert (out / "bounds.png").is_file()
    assert "Bounds and what they bound" in (out / "index.html").read_text(encoding="utf-8")


def test_the_outline_of_a_band_is_one_for_each_stretch_where_it_is_known():
    x, nan = np.arange(6.0), np.nan
    low, high = np.array([nan, 1, 2, nan, 4, 5]), np.array([nan, 2, 3, nan, 5, 6])
    outlines = _band(Curve(label="sam", x=x, low=low, mean=low, high=high))

    assert [outline.tolist() for outline in outlines] == [
        [[1, 1], [2, 2], [2, 3], [1, 2]],
        [[4, 4], [5, 5], [5, 6], [4, 5]],
    ]
    assert _band(Curve(label="sam", x=x, low=x * nan, mean=x, high=x * nan)) == []
