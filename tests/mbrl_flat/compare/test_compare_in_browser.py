"""The page in a real browser: every figure is drawn, nothing is wrong, it fits every screen."""

import json
import os
import shutil

import numpy as np
import pytest
from playwright import sync_api

from mbrl_flat.compare.comparison import compare_runs
from mbrl_flat.compare.page import render_page
from mbrl_flat.compare.runs import find_runs, load_run

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no chromium; install it or set CHROMIUM to its path")
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page_file(make_run, tmp_path):
    """Two tasks, two optimizers, two seeds, with everything that a run can log."""
    rng = np.random.default_rng(0)
    for task in ("walker-walk", "dog-run"):
        for number, optimizer in enumerate(("adam", "sam")):
            for seed in range(2):
                metrics = {
                    "probe/sharpness/lambda_max": float(10.0 ** (3 - number + rng.random())),
                    "probe/sharpness/sam_gap": float(rng.random()),
                    "probe/sharpness/param_norm": 40.0 + seed,
                    "probe/value/rmse_normalised": float(rng.random()),
                    "probe/value/bias": float(rng.normal()),
                    "probe/rollout/latent_error_1": 0.1,
                    "probe/rollout/loss_gap": 0.2,
                    "eval/random_return_mean": 20.0,
                    "eval/normalised_score": float(rng.random()),
                }
                costs = [
                    (100 * k, {"optim/evaluations_total": 100.0 * k * (1 + number)})
                    for k in range(1, 4)
                ]
                make_run(
                    optimizer,
                    task=task,
                    seed=seed,
                    returns=tuple(100.0 * k + 50.0 * rng.random() for k in range(4)),
                    metrics=metrics,
                    rows=costs,
                )
    runs = [load_run(folder) for folder in find_runs([str(tmp_path / "runs")])]
    file = tmp_path / "index.html"
    file.write_text(render_page(compare_runs(runs, references=["tdmpc2"]), title="Runs"))
    return file


@pytest.fixture
def open_page(browser, page_file):
    pages, here = [], page_file.as_uri()

    def visit(**context):
        page = browser.new_page(**context)
        page.wrong = []
        page.on("console", lambda message: page.wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on(
            "request", lambda asked: page.wrong.append(asked.url) if asked.url[:5] != "file:" else 0
        )
        page.goto(here)
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()


def inked(png, box):
    """Share of pixels within a box that are not of its most frequent colour."""
    import io

    from matplotlib.image import imread

    pixels = (imread(io.BytesIO(png))[..., :3] * 255).astype(np.int64)
    left, top = round(box["x"]), round(box["y"])
    part = pixels[top : top + round(box["height"]), left : left + round(box["width"])]
    codes = (part @ np.array([65536, 256, 1])).ravel()
    return 1.0 - np.unique(codes, return_counts=True)[1].max() / codes.size


def test_a_screenshot_shows_every_figure_and_the_console_is_silent(open_page):
    page = open_page(viewport={"width": 1280, "height": 900})

    figure = page.screenshot(full_page=True)

    figures = page.locator("svg.chart")
    titles = [text.strip() for text in page.locator("h2").all_inner_texts()]
    # 2 tasks: returns, 2 costs, 2 value errors, 3 sharpnesses, 2 model errors, 5 scatter plots.
    assert figures.count() == 2 * (1 + 2 + 2 + 3 + 2 + 5)
    for number in range(figures.count()):
        assert inked(figure, figures.nth(number).bounding_box()) > 0.005
    assert titles[0] == "Returns"
    assert "Over tasks" in titles
    assert page.wrong == []


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_screen(open_page, width):
    page = open_page(viewport={"width": width, "height": 800})

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.wrong == []


def test_dark_and_light_follow_the_system_and_the_button(open_page):
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(245, 246, 248)", "rgb(16, 20, 27)"  # --paper in style.css
    assert open_page(color_scheme="light").evaluate(colour) == light
    page = open_page(color_scheme="dark")

    assert page.evaluate(colour) == dark
    page.click("#theme")
    assert page.evaluate(colour) == light
    assert page.wrong == []


def test_groups_can_be_hidden_values_read_and_tables_sorted(open_page):
    page = open_page(viewport={"width": 1280, "height": 900})

    page.click("nav button >> nth=1")
    assert page.locator("svg .g1:visible").count() == 0
    assert page.locator("svg .g0:visible").count() > 0
    page.hover("svg.chart >> nth=0")
    assert "Adam" in page.locator("#tip").inner_text()
    first = page.locator("table.sortable >> nth=0")
    first.locator("th >> nth=3").click()
    values = first.locator("tr td:nth-child(4)").evaluate_all(
        "cells => cells.map(cell => Number(cell.dataset.value))"
    )
    assert values == sorted(values, reverse=True)
    assert page.wrong == []


def test_the_tooltip_stands_at_the_point_under_the_pointer(open_page):
    page = open_page(viewport={"width": 1280, "height": 900})
    chart = page.locator("svg.chart >> nth=0")
    chart.scroll_into_view_if_needed()
    numbers = json.loads(chart.get_attribute("data-chart"))
    curve, x, y = numbers["curves"][1], numbers["x"], numbers["y"]
    box, scale = chart.bounding_box(), chart.bounding_box()["width"] / 480

    def pixels(axis, value):
        share = (value - axis["low"]) / (axis["high"] - axis["low"])
        return axis["start"] + share * (axis["end"] - axis["start"])

    left = box["x"] + scale * pixels(x, curve["x"][2])
    top = box["y"] + scale * pixels(y, curve["y"][2])
    page.mouse.move(left + 2, top + 2)

    mark, tip = page.locator("svg.chart .mark >> nth=0"), page.locator("#tip")
    ring = mark.bounding_box()
    assert ring["x"] + ring["width"] / 2 == pytest.approx(left, abs=1.5)
    assert ring["y"] + ring["height"] / 2 == pytest.approx(top, abs=1.5)
    assert tip.locator(".near").inner_text().startswith(f"{curve['label']}: ")
    assert tip.locator("div").first.inner_text() == "200"
    assert abs(tip.bounding_box()["x"] - left) < 30
    assert page.wrong == []


def test_chart_text_is_readable_on_a_phone_and_nothing_leaves_the_charts(open_page):
    page = open_page(viewport={"width": 360, "height": 740})

    sizes = page.locator("svg.chart text").evaluate_all(
        "texts => texts.map(text => text.getBoundingClientRect().height)"
    )
    outside = page.locator("svg.chart text").evaluate_all(
        """texts => texts.filter(text => {
            const box = text.getBoundingClientRect();
            const card = text.closest(".card").getBoundingClientRect();
            return box.left < card.left || box.right > card.right;
        }).map(text => text.textContent)"""
    )

    assert min(sizes) >= 11
    assert outside == []
    assert page.wrong == []
