"""The sharpness of an agent's world-model loss, on the schedule of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.guard import preserve_state
from mbrl_flat.diagnostics.inspection import measured_weights, optimizer_of, training_batch
from mbrl_flat.diagnostics.lanczos import lanczos, start_vector
from mbrl_flat.diagnostics.probe import NothingToMeasure, SeededProbe
from mbrl_flat.diagnostics.sharpness import LossRegion, loss_regions, norms, sam_gap
from mbrl_flat.diagnostics.sharpness_measures import Context, SharpnessMeasure
from mbrl_flat.interfaces import Inspectable, ProbeLoss
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.settings import setting

_FEWEST_WARM = 5
"""Products from a start of an earlier measurement: enough to see that another direction is sharper
now, of which the start has one part in thousands."""


@dataclass(kw_only=True, eq=False, repr=False)
class SharpnessProbe(SeededProbe):
    """Measures on a batch that it draws afresh each time; nothing of the agent or the run moves.

    The names begin with ``probe/sharpness/``; of the held-out episodes, where asked for, with
    ``probe/sharpness/heldout/``; and of a module with its name after that.

    Attributes:
        batch_size: Subsequences in a batch. Small ones inflate the largest eigenvalue, which is a
            maximum over sampling noise too: compare only what was measured at equal size.
        rho: Radius of the SAM gap. 0.05 is the default of SAM, arXiv:2010.01412, so that the gap
            is the one that SAM would see, whatever optimizer is in use.
        iterations: Most Lanczos iterations for each pair of extreme eigenvalues. On TD-MPC2 with
            5 M weights 8 give ``lambda_max`` to 0.1%. ``lambda_min`` is a fiftieth of it there
            and harder to find: 12 give half of it, 20 seven eighths, never more than there is.
        tolerance: Relative residual at which Lanczos stops earlier. 0.05 leaves errors of about
            0.2% in the eigenvalue, far below the differences between batches.
        per_module: Measure each module's weights by themselves as well.
        heldout: Measure on held-out episodes as well, once there are any.
        curvature: Further quantities that use the graph of the loss; see
                ``sharpness_measures.py``.
        gaps: Further quantities that move the weights.
        sequence_length: Transitions in a subsequence; by default as many as the agent learns from.
        seed: Determines the batches and every direction.
    """

    batch_size: int = setting(256, "[1, inf)")
    rho: float = setting(0.05, "(0, inf)")
    iterations: int = setting(12, "[1, inf)")
    tolerance: float = setting(0.05, "[0, inf)")
    per_module: bool = True
    heldout: bool = False
    curvature: Sequence[SharpnessMeasure] = ()
    gaps: Sequence[SharpnessMeasure] = ()
    sequence_length: int | None = setting(None, "[1, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._generator = torch.Generator().manual_seed(self.seed)
        self._starts: dict[str, Tensor] = {}

    def __call__(self, agent: Inspectable, replay: Replay) -> dict[str, float]:
        """Measure.

        Args:
            agent: The trained agent whose model loss is measured; it is not changed.
            replay: Where the batches come from.

        Returns:
            The row; without held-out episodes it lacks their part.

        Raises:
            NothingToMeasure: If no stored subsequence is long enough.
        """
        row: dict[str, float] = {}
        for kind in ("training", "heldout") if self.heldout else ("training",):
            heldout = kind == "heldout"
            try:
                batch = training_batch(
                    agent,
                    replay,
                    self.batch_size,
                    rng=self.rng,
                    length=self.sequence_length,
                    heldout=heldout,
                )
            except NothingToMeasure:
                if not row:
                    raise
                continue
            seed = int(self.rng.integers(2**31))
            with measured_weights(agent):
                with restored_rng():
                    # Whatever the loss samples (heads, actions) belongs to the probe alone.
                    torch.manual_seed(seed)
                    probed = agent.probe_loss(batch)
                measured = self.measure(probed, optimizer=optimizer_of(agent), remember=not heldout)
            part = "heldout/" if heldout else ""
            row |= {f"probe/sharpness/{part}{name}": value for name, value in measured.items()}
        return row

    def measure(
        self,
        probed: ProbeLoss,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        remember: bool = True,
    ) -> dict[str, float]:
        """Measure one loss.

        Args:
            probed: The loss and its parameters by module.
            optimizer: Who trains them, for quantities that depend on it.
            remember: Start the next Lanczos where this one ended.

        Returns:
            Quantities of all weights by their names, and of each module below its name.
        """
        if optimizer is not None and optimizer.param_groups[0].get("maximize", False):
            probed = ProbeLoss(lambda loss=probed.loss: -loss(), probed.modules)
        params = [p for module in probed.modules.values() for p in module]
        context = Context(
            generator=self._generator, optimizer=optimizer, categorical=probed.categorical
        )
        row: dict[str, float] = {}

        def note(region: LossRegion, values: Mapping[str, float]) -> None:
            row.update({region.prefix + name: value for name, value in values.items()})

        with preserve_state(params=params):
            for p in params:
                p.requires_grad_(True)
            parts = loss_regions(probed, per_module=self.per_module)
            # First all that needs the graph: moving the weights invalidates it.
            for region in parts:
                note(region, self._curvature(region, remember=remember))
                for quantity in self.curvature:
                    note(region, quantity(region, context))
            for region in parts:
                measured = norms(region, rho=self.rho)
                # Invariant to a factor of all weights that leaves the loss alone.
                scaled = row[f"{region.prefix}lambda_max"] * measured["param_norm"] ** 2
                note(region, measured | {"lambda_max_normalised": scaled})
                note(region, {"sam_gap": sam_gap(region, rho=self.rho)})
                for quantity in self.gaps:
                    note(region, quantity(region, context))
        return row

    def _curvature(self, region: LossRegion, *, remember: bool) -> dict[str, float]:
        previous = self._starts.get(region.name)
        size = region.gradient.numel()
        start = start_vector(
            size,
            generator=self._generator,
            previous=None if previous is None else previous.to(region.gradient),
        )
        found = lanczos(
            region.product,
            start.to(region.gradient),
            max_iterations=self.iterations,
            min_iterations=1 if previous is None else _FEWEST_WARM,
            tolerance=self.tolerance,
        )
        if remember and np.isfinite(found.lambda_max):
            # One vector with both ends in it starts both; half precision will do for a start.
            self._starts[region.name] = (found.top + found.bottom).to("cpu", torch.bfloat16)
        return {"lambda_max": found.lambda_max, "lambda_min": found.lambda_min}

    def state_dict(self) -> dict[str, Any]:
        """Both streams, and where the next Lanczos starts."""
        return {
            **super().state_dict(),
            "generator": self._generator.get_state(),
            "starts": dict(self._starts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        super().load_state_dict(state)
        self._generator.set_state(state["generator"].cpu())
        self._starts = {name: start.cpu() for name, start in state["starts"].items()}
