"""Studies: computed once, gone on with where they stopped, refused where they do not fit."""

import json
import math
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch

from mbrl_flat.analysis.plot_style import make_panels
from mbrl_flat.errors import DivergedError, UserError
from mbrl_flat.runtime.interrupts import check_interrupt
from mbrl_flat.studies.framework import Trial, run_study, sign_claim


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Draws numbers; a second stage measures at the best setting of the first."""

    title = "Toy"
    paper = "nobody"
    scales: Sequence[float] = (1.0, 2.0)
    seeds: int = 3
    diverging: float | None = None
    calls: list[Trial] = field(default_factory=list, compare=False)

    def cells(self, rows):
        sweep = [Trial(stage="sweep", scale=s, seed=i) for s in self.scales for i in range(3)]
        if len(rows) < len(sweep):
            return sweep
        best = max(self.scales, key=lambda s: sum(rows.where(scale=s).values("draw")))
        return [*sweep, *(Trial(stage="final", scale=best, seed=i) for i in range(self.seeds))]

    def measure(self, cell):
        self.calls.append(cell)
        if cell["scale"] == self.diverging:
            raise DivergedError(17, "too steep.")
        return {"draw": float(cell["scale"]) * float(torch.rand(())), "curve": [1.0, math.inf]}

    def claims(self, rows):
        return [sign_claim("C1", "draws are positive", "draw", rows.values("draw"), above=0.0)]

    def figures(self, rows):
        figure, (axes,) = make_panels(1)
        axes.plot(rows.values("draw"))
        return {"draws": figure}


def without_times(folder):
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "cpu_seconds"} for line in lines]


def test_a_study_leaves_rows_tables_and_pictures(tmp_path):
    outcome = run_study(Toy(), tmp_path, command="toy")

    assert outcome.computed == len(outcome.rows) == 9
    assert sorted(p.name for p in outcome.written) == sorted(
        ["claims.csv", "claims.md", "draws.png", "draws.svg", "results.csv", "summary.md"]
    )
    assert "| C1 | draws are positive | **supported** | 9 |" in (tmp_path / "claims.md").read_text()
    assert "curve" not in (tmp_path / "results.csv").read_text()


def test_a_second_start_computes_nothing(tmp_path):
    run_study(Toy(), tmp_path, command="toy")
    before = (tmp_path / "rows.jsonl").read_bytes()

    again = Toy()
    outcome = run_study(again, tmp_path, command="toy")

    assert outcome.computed == 0
    assert again.calls == []
    assert (tmp_path / "rows.jsonl").read_bytes() == before


@pytest.mark.parametrize("kept", [0, 1, 4, 7])
def test_an_interrupted_study_ends_with_the_same_rows(tmp_path, kept):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    run_study(Toy(), whole, command="toy")
    run_study(Toy(), torn, command="toy")
    lines = (torn / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (torn / "rows.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:11])

    outcome = run_study(Toy(), torn, command="toy")

    assert outcome.computed == 9 - kept
    assert without_times(torn) == without_times(whole)
    assert (torn / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert (torn / "plots" / "draws.svg").read_bytes() == (
        whole / "plots" / "draws.svg"
    ).read_bytes()


def test_a_folder_of_other_settings_is_refused_and_left_alone(tmp_path):
    run_study(Toy(), tmp_path, command="toy")
    before = (tmp_path / "rows.jsonl").read_bytes()

    with pytest.raises(UserError, match=r"other settings.*seeds"):
        run_study(Toy(seeds=5), tmp_path, command="toy")

    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_the_summary_has_the_mean_of_each_setting_over_its_seeds(tmp_path):
    outcome = run_study(Toy(), tmp_path, command="toy")

    lines = (tmp_path / "summary.md").read_text().splitlines()
    assert lines[0] == "| stage | scale | seeds | draw |"
    assert len(lines) == 2 + 3
    mean = sum(outcome.rows.where(stage="sweep", scale=1.0).values("draw")) / 3
    assert lines[2].startswith(f"| sweep | 1.0 | 3 | {mean:.4g} +- ")


def test_divergence_is_reported_with_its_step_and_is_in_no_mean(tmp_path):
    outcome = run_study(Toy(diverging=2.0), tmp_path, command="toy")

    assert outcome.rows.where(scale=2.0).diverged_at() == [17, 17, 17]
    assert "3 of 9 runs diverged, between steps 17 and 17" in (tmp_path / "claims.md").read_text()
    assert all(math.isfinite(v) for v in outcome.rows.values("draw"))
    assert "diverged_at_step" in (tmp_path / "results.csv").read_text().splitlines()[0]


def test_the_random_streams_of_the_caller_do_not_move(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    run_study(Toy(), tmp_path, command="toy")

    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"step": 1}\n')

    with pytest.raises(UserError, match="not the record of a study"):
        run_study(Toy(), tmp_path, command="toy")


@dataclass(frozen=True, kw_only=True)
class Stopped(Toy):
    """Is asked to stop while it measures for the fifth time, in the first stage."""

    def measure(self, cell):
        found = super().measure(cell)
        if len(self.calls) == 5 and cell["stage"] == "sweep":
            os.kill(os.getpid(), signal.SIGTERM)
        check_interrupt()
        return found


def test_a_signal_drops_the_measurement_under_way_which_is_computed_again(tmp_path):
    first = run_study(Stopped(), tmp_path / "cut", command="toy")
    assert (first.computed, first.exit_status, first.written) == (4, 143, [])
    assert run_study(Stopped(), tmp_path / "cut", command="toy").exit_status == 0

    run_study(Toy(), tmp_path / "whole", command="toy")
    assert without_times(tmp_path / "cut") == without_times(tmp_path / "whole")
