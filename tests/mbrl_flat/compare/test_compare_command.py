import csv
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from mbrl_flat.analysis.plot_style import METHODS
from mbrl_flat.compare.main import main
from mbrl_flat.runtime.versions import version_line

SHARP = {
    "probe/sharpness/lambda_max": 5.0,
    "probe/sharpness/sam_gap": 0.1,
    "probe/value/rmse_normalised": 0.3,
    "eval/random_return_mean": 2.0,
}


def read_table(out):
    with (out / "table.csv").open() as file:
        return list(csv.DictReader(file))


class Balanced(HTMLParser):
    """Fails on a tag that is not closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_report_has_the_page_the_tables_and_the_figures(make_run, compare, out, capsys):
    for seed in range(2):
        make_run("adam", seed=seed, metrics=SHARP)
        make_run("sam", seed=seed, metrics=SHARP)

    status = compare()

    assert status == 0
    assert {path.name for path in out.iterdir()} == {
        "index.html", "table.csv", "seeds.csv", "table.md",
        *(f"{name}.{ending}" for ending in ("png", "svg") for name in (
            "return", "compute", "value_error", "sharpness", "sharpness_scatter")),
    }  # fmt: skip
    assert "| walker-walk | sam | 2 |" in (out / "table.md").read_text(encoding="utf-8")
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed if line.startswith("  sam")] == [["sam", "2"]]


def test_the_page_says_over_how_much_of_a_run_final_values_are_means(
    make_run, compare, out, capsys
):
    make_run(returns=(0.0, 10.0, 20.0))

    assert compare("--last", "0.75") == 0
    assert "over the last 75% of a run" in (out / "index.html").read_text(encoding="utf-8")
    assert float(read_table(out)[0]["final_return"]) == 15.0
    assert compare("--last", "75") == 2
    assert capsys.readouterr().err == (
        "--last is a share of a run, above 0 and at most 1, not 75.\n"
    )


def test_the_means_of_the_table_are_those_of_the_seeds(make_run, compare, out):
    for seed, last in enumerate((10.0, 40.0)):
        make_run("adam", seed=seed, returns=(0.0, last))
    make_run("sam", metrics=SHARP)

    assert compare() == 0

    with (out / "seeds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["seed"]) for row in rows] == [
        ("adam", "0"),
        ("adam", "1"),
        ("sam", "0"),
    ]
    assert [row["final_return"] for row in rows[:2]] == ["10.0", "40.0"]
    assert float(read_table(out)[0]["final_return"]) == 25.0
    assert rows[0]["lambda_max"] == ""
    assert float(rows[2]["lambda_max"]) == SHARP["probe/sharpness/lambda_max"]


def test_the_page_is_well_formed_and_asks_for_nothing_from_elsewhere(make_run, compare, out):
    make_run("adam", metrics=SHARP)
    make_run("sam", metrics=SHARP)

    compare("--reference", "tdmpc2")

    page = (out / "index.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"(src|href)\s*=|url\(|@import|fetch\(", page)
    for drawing in re.findall(r"<svg class.*?</svg>(?:</svg>)?", page, flags=re.DOTALL):
        ET.fromstring(drawing)
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


def test_text_of_runs_and_of_the_user_cannot_become_markup(make_run, compare, out):
    """A run folder may come from someone else: every text of it that a page can show."""
    evil = "\"'><img src=x onerror=alert(1)><svg onload=alert(2)>{{ 7 * 7 }}</script>&lt;"
    shown = evil.replace("/", "_")
    for seed in range(2):
        folder = make_run(
            shown,
            seed=seed,
            task=shown,
            metrics={**SHARP, f"probe/sharpness/{evil}": 1.0},
            settings={evil: f"{evil}{seed}", "rho": evil},
            preset=evil,
            wandb={"tags": [evil], "group": evil},
            **{evil: [evil, seed]},
        )
        (folder / "environment.json").write_text(
            json.dumps({"git_revision": evil, "packages": {evil: evil}, "device": evil})
        )
    make_run("adam", metrics=SHARP)

    compare("--title", "<b>bold</b>")

    page = (out / "index.html").read_text()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "&lt;img src=x" in page
    for file in [*out.rglob("*.html"), *out.rglob("*.svg"), *out.rglob("*.md")]:
        text = file.read_text()
        assert "<img" not in text, file
        assert "<svg onload" not in text, file
        assert text.count("</script>") == text.count("<script>"), file


def test_the_table_has_one_row_a_group_with_its_numbers(make_run, compare, out):
    for seed, value in enumerate((10.0, 20.0)):
        make_run("adam", seed=seed, returns=(0.0, value))
        make_run("sam", seed=seed, returns=(0.0, value + 5.0))

    compare()

    adam, sam = read_table(out)
    assert (adam["label"], adam["final_return"], adam["seeds"]) == ("adam", "15.0", "0 1")
    assert (sam["difference"], sam["pairs"], adam["difference"]) == ("5.0", "2", "")


def test_a_run_without_any_metric_is_still_shown(make_run, compare, out):
    make_run("adam")
    make_run("sam", returns=())

    assert compare() == 0
    assert [row["final_return"] for row in read_table(out)] == ["10.0", ""]


def test_runs_that_were_never_measured_make_a_report_too(make_run, compare, out):
    make_run("adam", returns=())

    assert compare() == 0
    assert "adam" in (out / "index.html").read_text()


def test_the_same_runs_give_the_same_report(make_run, compare, out):
    for seed in range(3):
        make_run("adam", seed=seed, returns=(0.0, float(seed)))

    compare()
    first = (out / "index.html").read_text()
    compare()

    assert (out / "index.html").read_text() == first


@pytest.mark.skipif(sys.platform != "linux", reason="forked processes are for Linux")
def test_several_processes_give_the_same_report(make_run, compare, out, monkeypatch):
    for seed in range(3):
        make_run("adam", seed=seed, metrics=SHARP)
        make_run("sam", seed=seed, metrics=SHARP)
    reports = []
    for cores in ({0}, {0, 1, 2}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        monkeypatch.setattr("mbrl_flat.compare.main._RUNS_PER_PROCESS", 1)
        monkeypatch.setattr("mbrl_flat.compare.figures._FEW_RUNS", 0)
        assert compare() == 0
        reports.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert reports[0] == reports[1]
    assert {"index.html", "return.png", "sharpness_scatter.png"} <= reports[0].keys()


def test_the_baseline_comes_first_and_can_be_chosen(make_run, compare, out):
    make_run("adam")
    make_run("sam")

    compare("--baseline", "sam")

    assert [row["label"] for row in read_table(out)] == ["sam", "adam"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "sma"], "Unknown baseline 'sma'; did you mean 'sam'?"),
        (["--reference", "tdmcp2"], "Unknown reference 'tdmcp2'; did you mean 'tdmpc2'"),
        (["no-such-run"], "There is no run at 'no-such-run'"),
    ],
)
def test_what_the_user_can_correct_is_one_message_and_status_two(
    make_run, compare, capsys, arguments, message
):
    make_run("sam")

    assert compare(*arguments) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_home_directory_is_found_in_every_path(make_run, compare, tmp_path, monkeypatch):
    make_run("a")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert main(["~/runs", "--out=~/here"]) == 0
    assert main(["$HOME/runs/*", "--out=$HOME/there"]) == 0

    assert not (tmp_path / "~").exists()
    assert all((tmp_path / name / "index.html").exists() for name in ("here", "there"))


def test_a_report_never_goes_into_a_run(make_run, tmp_path, capsys):
    folder = make_run()
    before = sorted(folder.iterdir())

    assert main([str(folder), "--out", str(folder)]) == 2

    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("out", "said"),
    [("", "is empty; give a folder"), (" ", "is empty"), ("x" * 300, "File name too long")],
)
def test_a_folder_that_cannot_be_is_refused(make_run, tmp_path, capsys, out, said):
    make_run()
    try:
        status = main([str(tmp_path / "runs"), "--out", out])
    except SystemExit as stop:
        status = stop.code

    message = capsys.readouterr().err
    assert status == 2
    assert said in message
    assert message.count("\n") == 1


def test_many_groups_keep_their_own_button(make_run, compare, out):
    for number in range(20):
        make_run("sam", settings={"rho": number / 100})

    compare()

    page = (out / "index.html").read_text()
    assert len(re.findall(r'data-group="\d+"', page)) == 20
    assert "20 groups on 1 task," in page
    assert "d1" in page


def test_a_group_with_runs_on_two_tasks_is_one_group(make_run, compare, out):
    for task in ("dog-run", "dog-trot"):
        make_run("adam", task=task)
        make_run("sam", task=task)

    assert compare() == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "4 runs in 2 groups on 2 tasks," in page


@pytest.mark.parametrize("num_seeds", [4, 5])
def test_a_winner_needs_five_seeds(make_run, compare, out, num_seeds):
    for seed in range(num_seeds):
        make_run("adam", seed=seed)
        make_run("sam", seed=seed, returns=(0.0, 20.0 + seed))

    assert compare() == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert len(re.findall('<td class="best"', page)) == (num_seeds == 5)
    assert [row["improvement"] for row in read_table(out)] == ["", "1.0" if num_seeds == 5 else ""]


def test_a_method_has_its_colour_whatever_it_is_compared_with(make_run, compare, out):
    make_run("sam")
    make_run("vasso")

    assert compare() == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert f"color: {METHODS['sam'].color};" in page
    assert f"color: {METHODS['vasso'].color};" in page
    assert "</span></span>VaSSO" in page


def test_a_reader_that_has_seen_enough_is_no_error(make_run, tmp_path):
    make_run()
    code = "import sys; from mbrl_flat.compare.main import main; sys.exit(main())"
    arguments = [str(tmp_path / "runs" / "*"), "--out", str(tmp_path / "r")]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "r" / "index.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The following arguments are required: RUN; see mbrl-flat-compare --help.\n"),
        (["a", "--sort"], "Unrecognized arguments: --sort; see mbrl-flat-compare --help.\n"),
    ],
)
def test_wrong_arguments_are_one_message(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err == message


def test_a_task_without_the_baseline_says_so(make_run, compare, out):
    make_run("adam", task="dog-run")
    make_run("sam", task="dog-run")
    make_run("sam", task="dog-trot")

    assert compare("--baseline", "adam") == 0
    table = (out / "table.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("| dog")]
    last = [[cell.strip() for cell in row.split("|")][-3] for row in rows]
    assert last[0] == "baseline"
    assert last[2] == "no baseline"
    assert "dog-trot: no run of the baseline" in (out / "index.html").read_text(encoding="utf-8")


def test_groups_whose_colours_come_again_have_another_swatch(make_run, compare, out):
    for number in range(9):
        make_run("sam", settings={"rho": 0.01 * number}, metrics=SHARP)

    assert compare() == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    swatches = re.findall(r'<button[^>]*><span class="([^"]*)"><span class="swatch">', page)
    assert len(swatches) == len(set(swatches)) == 9


def test_help_has_five_examples_and_the_version_is_that_of_all_commands(capsys):
    for flag in ("--help", "--version"):
        with pytest.raises(SystemExit) as left:
            main([flag])
        assert left.value.code == 0
    text = capsys.readouterr().out

    assert text.count("\n  mbrl-flat-compare runs") == 5
    assert text.endswith(version_line() + "\n")
