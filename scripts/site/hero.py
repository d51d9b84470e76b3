"""Draw docs/assets/hero.png: what flat world models do better and worse than Adam's.

    python scripts/site/hero.py

From the rows of docs/studies/central_claim: models of recorded cartpole-swingup, ten seeds. Errors
are ratios to Adam with as many gradient evaluations, seed by seed, returns of planning with the
models (H = 3) are differences. Shown are the seeds, their mean and Student's 95 % interval.
"""

import runpy
from pathlib import Path

import numpy as np

from mbrl_flat.analysis.forest import ForestRow, draw_forest
from mbrl_flat.analysis.plot_style import make_panels, save_figure
from mbrl_flat.studies.experiments.central_claim_control import shown_color, shown_name
from mbrl_flat.studies.experiments.world_model_report import log_changes
from mbrl_flat.studies.framework import TrialRows

ROOT = Path(__file__).parents[2]
STUDY = "central_claim"
BASELINE = "adam_matched"
VARIANTS = ("sam", "msam", "random_direction", "adam")
RATIOS = {
    "train_lambda_max": "Hessian eigenvalue\n(flatter | sharper)",
    "state_error_last": "error after ten steps\n(better | worse)",
    "value_error_0": "error of the value\n(better | worse)",
}
RETURN = "return_3"


def main() -> None:
    """Draw the figure."""
    report = runpy.run_path(str(ROOT / "scripts" / "study_report.py"))
    rows: TrialRows = report["load_rows"](report["load_study"](STUDY), STUDY)
    by_variant = {name: rows.where(variant=name) for name in (*VARIANTS, BASELINE)}
    title = "World models of cartpole-swingup, against Adam of equal cost"
    figure, panels = make_panels(len(RATIOS) + 1, columns=2, title=title)
    for number, (axes, (metric, words)) in enumerate(zip(panels, RATIOS.items(), strict=False)):
        theirs = by_variant[BASELINE].by_seed(metric)
        forest = [
            _forest_row(name, np.exp(log_changes(by_variant[name].by_seed(metric), theirs)))
            for name in VARIANTS
        ]
        draw_forest(axes, forest, reference=1.0, ratio=True, named=number % 2 == 0)
        axes.set_xlabel(words)
    differences = [
        _forest_row(name, np.array(by_variant[name].minus(by_variant[BASELINE], RETURN)))
        for name in VARIANTS
    ]
    draw_forest(panels[-1], differences, reference=0.0, named=False)
    panels[-1].set_xlabel("return of planning, difference\n(worse | better)")
    save_figure(figure, ROOT / "docs" / "assets" / "hero.png")


def _forest_row(variant: str, values: np.ndarray) -> ForestRow:
    return ForestRow(shown_name(variant), values.tolist(), shown_color(variant))


if __name__ == "__main__":
    main()
