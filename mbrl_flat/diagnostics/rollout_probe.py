"""Open-loop errors of an agent's world model, on the schedule of a run."""

from dataclasses import dataclass

import numpy as np
import torch

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.inspection import episode_batch, measured_weights, training_batch
from mbrl_flat.diagnostics.probe import NothingToMeasure, SeededProbe
from mbrl_flat.diagnostics.reference_encoder import ReferenceEncoder
from mbrl_flat.diagnostics.rollout_error import (
    Reference,
    compounding,
    fit_readout,
    fit_tuned_readout,
    read_by_heads,
    rollout_errors,
    vector_observations,
)
from mbrl_flat.diagnostics.termination import draw_endings, predicted, termination_scores
from mbrl_flat.interfaces import Inspectable, PredictsTermination
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.settings import setting


@dataclass(kw_only=True, eq=False, repr=False)
class RolloutProbe(SeededProbe):
    """Measures on held-out subsequences; nothing of the agent or the run moves.

    The names begin with ``probe/rollout/``. Next to the errors of ``rollout_errors`` there are
    ``loss_train``, ``loss_heldout`` and ``loss_gap``, the world-model loss on subsequences of both
    kinds, and the scores of ``termination.py``, if the agent predicts terminations and there are
    some.

    Attributes:
        horizon: Longest rollout K.
        batch_size: Subsequences in a batch.
        heldout: Measure on held-out episodes; otherwise on those that the agent trains on.
        reference_seed: Determines the frozen encoder; runs are compared at the same one.
        seed: Determines the subsequences.

    Raises:
        UserError: If a number is out of range.
    """

    horizon: int = setting(10, "[1, inf)")
    batch_size: int = setting(128, "[2, inf)")
    heldout: bool = True
    reference_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoder = ReferenceEncoder(seed=self.reference_seed)

    def __call__(self, agent: Inspectable, replay: Replay) -> dict[str, float]:
        """Measure.

        Args:
            agent: The trained agent whose world model predicts; it is not changed.
            replay: Where the subsequences come from.

        Returns:
            The row.

        Raises:
            NothingToMeasure: If no stored episode of a kind that is needed is long enough.
        """
        training, tested = (
            episode_batch(replay, self.batch_size, self.horizon, rng=self.rng, heldout=kind)
            for kind in (False, self.heldout)
        )
        seed = int(self.rng.integers(2**31))
        with measured_weights(agent), restored_rng(), torch.no_grad():
            row = self._errors(agent, training, tested)
            row |= compounding(row)
            if self.heldout:
                row |= heldout_losses(agent, replay, self.batch_size, seed=seed)
            row |= self._terminations(agent, replay)
        return {f"probe/rollout/{name}": value for name, value in row.items()}

    def _errors(self, agent: Inspectable, training: Batch, tested: Batch) -> dict[str, float]:
        """Errors on ``tested``, read out by what ``training`` says of the latents."""
        read = read_by_heads(agent, agent.posterior(training))
        training = training.to(read.device)
        readout, state = None, vector_observations(training)
        if state is not None:
            readout = fit_readout(read.flatten(0, 1), state.flatten(0, 1))
        reference = Reference(self.encoder, fit_tuned_readout(read, self.encoder(training.obs)))
        return rollout_errors(agent, tested, readout=readout, reference=reference)

    def _terminations(self, agent: Inspectable, replay: Replay) -> dict[str, float]:
        if not (isinstance(agent, PredictsTermination) and agent.predicts_termination):
            return {}
        drawn = draw_endings(
            replay, self.batch_size, self.horizon, rng=self.rng, heldout=self.heldout
        )
        if drawn is None:
            return {}
        ended = drawn.batch.terminated[:, -1]
        return termination_scores(predicted(agent, drawn.batch), ended, rate=drawn.rate)


def heldout_losses(agent: Inspectable, replay: Replay, num: int, *, seed: int) -> dict[str, float]:
    """World-model loss on subsequences as the agent trains on, from both kinds of episodes.

    Args:
        agent: The trained agent whose model loss is measured; it is not changed.
        replay: Where the subsequences come from.
        num: How many of each kind.
        seed: Determines them and what the loss draws, which is the same for both.

    Returns:
        ``loss_train``, ``loss_heldout`` and ``loss_gap``; nothing without long enough episodes.
    """
    rng, losses = np.random.default_rng(seed), []
    try:
        for heldout in (False, True):
            batch = training_batch(agent, replay, num, rng=rng, heldout=heldout)
            torch.manual_seed(seed)
            losses.append(float(agent.probe_loss(batch).loss()))
    except NothingToMeasure:
        return {}
    return {
        "loss_train": losses[0],
        "loss_heldout": losses[1],
        "loss_gap": losses[1] - losses[0],
    }
