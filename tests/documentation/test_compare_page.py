"""What the page on comparing runs shows is what the command prints today."""

from pathlib import Path

from mbrl_flat.cli import main as cli
from mbrl_flat.compare.comparison import compare_runs
from mbrl_flat.compare.runs import find_runs, load_run
from mbrl_flat.compare.terminal import to_text

ROOT = Path(cli.__file__).parents[2]


def test_the_printed_table_on_the_page_is_that_of_the_committed_logs():
    page = (ROOT / "docs" / "guides" / "comparing.md").read_text(encoding="utf-8")
    logs = "docs/studies/study_dmc_cpu/logs/*quadruped*"
    runs = [load_run(path) for path in find_runs([str(ROOT / logs)])]

    assert f"mbrl-flat-compare '{logs}' --by variant" in page
    assert to_text(compare_runs(runs, by=["variant"]).rows) in page
