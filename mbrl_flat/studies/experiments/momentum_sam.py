"""Momentum-SAM: does a step along the momentum do what SAM's second gradient does?

References:
    Becker, Altrock & Risse, "Momentum-SAM: Sharpness Aware Minimization without Computational
    Overhead", arXiv:2401.12033. Claims and bounds of the table are those of a small replication;
    the paper's networks and data sets are larger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mbrl_flat.analysis.stats import t_interval
from mbrl_flat.optim.norms import joint_norm
from mbrl_flat.optim.perturbation import Perturbation, WeightBackup
from mbrl_flat.studies.experiments.comparison import ComparisonStudy, PairClaim, RadiusRatio
from mbrl_flat.studies.experiments.cost import step_costs
from mbrl_flat.studies.experiments.task import Fitted
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, Value, sign_claim
from mbrl_flat.studies.training import accuracy, refresh_statistics


class CostClaim(NamedTuple):
    """A step of Momentum-SAM costs at most a share of the base's CPU time more."""

    bound: float

    def of(self, study: ComparisonStudy, rows: TrialRows, network: str) -> Claim:
        """Build the claim; see ``Declared``."""
        del study
        cost = rows.where(cost=network)
        return sign_claim(
            "C1",
            f"{network}: a step costs at most {self.bound} of the base's",
            "CPU time of a step relative to the base's",
            cost.values("cost_msam"),
            below=self.bound,
            note=f"SAM: {t_interval(cost.values('cost_sam')).point:.2f}" if cost else "",
        )


@dataclass(frozen=True, kw_only=True)
class MomentumSAM(ComparisonStudy):
    """The study; its settings are those of ``ComparisonStudy``."""

    title = "Momentum-SAM on noisy labels"
    paper = "Becker, Altrock & Risse, Momentum-SAM, arXiv:2401.12033"
    declared = (
        CostClaim(1.1),
        PairClaim("C2", "beats the base", ("msam", "base"), above=0.0),
        PairClaim("C2", "is within 3 points of SAM", ("msam", "sam"), above=-3.0),
        RadiusRatio(
            "C3",
            "its best radius is 5 to 15 times SAM's",
            ("msam", "sam"),
            above=5.0,
            below=15.0,
            note="radii were tried in steps of a factor of 1.4 to 2",
        ),
        PairClaim("C4", "the other sign is worse", ("msam_flipped", "msam"), below=0.0),
        PairClaim(
            "C4",
            "a random direction of the same length is worse",
            ("random_direction", "msam"),
            below=0.0,
        ),
        PairClaim(
            "C5",
            "the minimum is flatter than the base's",
            ("msam", "base"),
            metric="lambda_max",
            below=0.0,
        ),
    )

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Accuracy on every network; cost there; evaluation at perturbed weights on the first."""
        cells, seeds = self.runs.cells(rows), range(self.runs.seeds)
        cells += [Trial(cost=net, seed=seed) for net in self.runs.networks for seed in seeds]
        first = self.runs.networks[0]
        if self.runs.sweep(first).is_complete(rows):
            rho = self.runs.chosen(rows, first, "msam")
            cells += [Trial(evaluation=first, method="msam", rho=rho, seed=s) for s in seeds]
        return cells

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Compute one cell of any of the three kinds."""
        tasks = self.runs.tasks
        if "cost" in cell:
            methods, seed = {"msam": 1.0, "sam": 0.1}, cell["seed"]
            return step_costs(tasks[cell["cost"]], methods, seed=seed)
        if "evaluation" in cell:
            task = tasks[cell["evaluation"]]
            return evaluations(task.fitted(cell), batch_size=task.batch_size)
        return super().measure(cell)

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """C1 to C5 on every network, C6 on the first."""
        first = self.runs.networks[0]
        ours = rows.where(evaluation=first)
        return [
            *super().claims(rows),
            sign_claim(
                "C6",
                f"{first}: evaluation at the perturbed weights is worse",
                "test accuracy there minus that at the clean weights",
                ours.minus(ours, "perturbed_accuracy", "clean_accuracy"),
                below=0.0,
            ),
            sign_claim(
                "C6",
                f"{first}: BatchNorm statistics re-estimated at the clean weights are better",
                "test accuracy with them minus that with the running ones",
                ours.minus(ours, "refreshed_accuracy", "clean_accuracy"),
                above=0.0,
            ),
        ]


def evaluations(fitted: Fitted, *, batch_size: int) -> dict[str, Value]:
    """Test accuracy of MSAM at the clean and the perturbed weights, and with fresh statistics."""
    optimizer = fitted.trained.optimizer
    params = [p for group in optimizer.param_groups for p in group["params"]]
    buffers = [optimizer.state[p]["momentum_buffer"] for p in params]
    scale = -float(optimizer.last["perturbation_norm"]) / (float(joint_norm(buffers)) + 1e-12)
    perturbation = Perturbation(directions=buffers, scales=[scale] * len(buffers))
    clean = 100.0 * accuracy(fitted.model, *fitted.split.test)
    with WeightBackup().perturbed(params, perturbation):
        perturbed = 100.0 * accuracy(fitted.model, *fitted.split.test)
    refresh_statistics(fitted.model, fitted.split.train[0], batch_size=batch_size)
    return {
        "clean_accuracy": clean,
        "perturbed_accuracy": perturbed,
        "refreshed_accuracy": 100.0 * accuracy(fitted.model, *fitted.split.test),
    }
