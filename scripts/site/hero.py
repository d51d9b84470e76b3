"""Draw docs/assets/hero.png: sharpness and prediction errors of each method relative to Adam.

    python scripts/site/hero.py

It is the figure of the study of world models without control, drawn from the test rows of
docs/studies/world_model_offline/results.csv. Ratios are taken seed by seed against Adam with as
many gradient evaluations; shown are the five seeds, their geometric mean and Student's 95 %
interval of the logarithms.
"""

import runpy
from pathlib import Path

from mbrl_flat.analysis.plot_style import save_figure

ROOT = Path(__file__).parents[2]
STUDY = "world_model_offline"


def main() -> None:
    """Draw the figure."""
    report = runpy.run_path(str(ROOT / "scripts" / "study_report.py"))
    study = report["load_study"](STUDY)
    figure = study.figures(report["load_rows"](study, STUDY))["errors"]
    save_figure(figure, ROOT / "docs" / "assets" / "hero.png")


if __name__ == "__main__":
    main()
