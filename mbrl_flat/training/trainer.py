"""The loop: act, record, learn, measure, save; the same for every agent and optimizer.

A *step* is one decision in one environment, a *frame* one simulator step. With N environments an
iteration makes N steps. Everything that the next iteration depends on is in ``state_dict``, so a
run that was killed continues as if it had not been.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.capacity import why_no_update
from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import EnvironmentFailure, NonFiniteError, UserError
from mbrl_flat.interfaces import Agent, Inspectable, Measurement, Metrics, RunLogger
from mbrl_flat.runtime.interrupts import Interrupted, cancellable
from mbrl_flat.runtime.seeding import rng_state, set_rng_state
from mbrl_flat.training.checkpoint import CheckpointFolder
from mbrl_flat.training.clocks import Every, UpdateClock
from mbrl_flat.training.collector import TrainEnvs, make_collector
from mbrl_flat.training.meters import MeanMeter, Stopwatch, rss_bytes
from mbrl_flat.training.samplers import Sampler, UniformSampler
from mbrl_flat.training.train_config import TrainConfig


class Trainer:
    """One run.

    Args:
        agent: Who acts and learns.
        envs: Where; None to learn offline, from what is in the replay.
        replay: What it learns from.
        logger: Where metrics go.
        config: When things happen.
        checkpoints: Where the run is saved.
        evaluations: Measured every ``eval_every`` steps.
        probes: Measured every ``probe_every`` steps.
        device: Where the agent draws its exploration noise.
        on_step: Told the step after every iteration, for a progress bar.
        on_update: Told the updates made and those pending, after each.
        update: What learns from a batch; by default the agent in this process alone.
        sampler: What draws the batches; by default uniformly from the replay.
    """

    def __init__(
        self,
        agent: Agent,
        envs: TrainEnvs | None,
        replay: Replay,
        logger: RunLogger,
        *,
        config: TrainConfig,
        checkpoints: CheckpointFolder,
        evaluations: Sequence[Measurement] = (),
        probes: Sequence[Measurement] = (),
        device: torch.device,
        on_step: Callable[[int], object] = lambda _step: None,
        on_update: Callable[[int, float], object] = lambda _updates, _pending: None,
        update: Callable[[Batch], Metrics] | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self.agent, self.replay, self.logger = agent, replay, logger
        self.config, self.checkpoints = config, checkpoints
        self.evaluations, self.probes = list(evaluations), list(probes)
        self.on_step, self.on_update = on_step, on_update
        self.update = update or agent.update
        self.sampler = sampler or UniformSampler(replay, agent)
        self.step = 0
        self.updates = 0
        self.evaluations_total = 0.0
        self.best = -np.inf
        self.saved_step: int | None = None
        self.finished = False
        self.pending_updates = UpdateClock(config.updates_per_step)
        self.clocks = {
            "log": Every(config.log_every),
            "eval": Every(config.eval_every, next=0),
            "probe": Every(config.probe_every),
            "checkpoint": Every(config.checkpoint_every),
        }
        self.meter, self.watch = MeanMeter(), Stopwatch()
        self.replay_rng = np.random.default_rng([config.seed, 1])
        self.collector = make_collector(
            agent, envs, replay, self.watch, seed=config.seed, device=device
        )

    def start(self) -> None:
        """Begin every environment's first episode and save the run once."""
        self.collector.start()
        self.save()

    def run(self, *, stop: Callable[[], bool] = lambda: False) -> bool:
        """Continue until all steps are made.

        Args:
            stop: Asked between updates and steps, and within measurements. Once it returns true the
                run is saved and left; an unfinished measurement is repeated after a resume.

        Returns:
            Whether the run is complete.

        Raises:
            NonFiniteError: If an update is not finite; names the step and the last checkpoint.
            EnvironmentFailure: If an environment fails or returns what is not finite; likewise.
            UserError: If nothing could be learned from the data that was collected.
        """
        try:
            return self._run(stop)
        except EnvironmentFailure as error:
            raise EnvironmentFailure(
                f"Stopped at step {self.step}: {error} Of this run {self._last_good()}."
            ) from error

    def _run(self, stop: Callable[[], bool]) -> bool:
        while not self.finished:
            self._learn(stop)
            last = self.step >= self.config.steps
            if stop() or not self._measure(stop, last=last):
                self.save()
                return False
            self._check_learning(last=last)
            self.finished = last
            self._report(last=last)
            if not last:
                self._advance()
        return True

    def _advance(self) -> None:
        """One step in every environment."""
        try:
            self.collector.step(random=self.step < self.config.seed_steps)
        except NonFiniteError as error:
            raise NonFiniteError(
                f"Stopped at step {self.step + self.collector.num_envs}: {error} Nothing was "
                f"recorded of this step; {self._last_good()}."
            ) from error
        self.step += self.collector.num_envs
        self.on_step(self.step)
        if self.step >= self.config.seed_steps:
            fresh = self.updates == 0 and self.pending_updates.pending == 0.0
            self.pending_updates.add_steps(self.step if fresh else self.collector.num_envs)

    def _learn(self, stop: Callable[[], bool]) -> None:
        """Make the updates that are pending, as soon as a subsequence can be drawn."""
        if not self.pending_updates.due or not self._can_learn():
            return
        while not stop() and self.pending_updates.pop():
            with self.watch.measure("sample"):
                batch = self.sampler(self.replay_rng)
            with self.watch.measure("update"):
                try:
                    metrics = self.update(batch)
                except NonFiniteError as error:
                    raise NonFiniteError(self._describe(error)) from error
            self.updates += 1
            self.evaluations_total += float(metrics.get("optim/evaluations", 0.0))
            self.meter.add(metrics)
            self.on_update(self.updates, self.pending_updates.pending)

    def _can_learn(self) -> bool:
        return self.updates > 0 or self.replay.can_sample(
            self.agent.sequence_length, across_episodes=self.agent.across_episodes
        )

    def _check_learning(self, *, last: bool) -> None:
        """Stop a run that has nothing to learn from."""
        waited = self.step - self.config.seed_steps
        idle = self.updates == 0 and self.config.updates_per_step > 0.0
        if not idle or not isinstance(self.agent, Inspectable):
            return
        if not last and waited < self.collector.max_idle_steps:
            return
        self.save()
        reason = why_no_update(self.replay, self.agent.sequence_length)
        raise UserError(f"No update was made in {self.step} steps: {reason}.")

    def _last_good(self) -> str:
        if self.saved_step is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.checkpoints.latest} (step {self.saved_step})"

    def _describe(self, error: NonFiniteError) -> str:
        return (
            f"Stopped at step {self.step}, update {self.updates + 1}: {error} Nothing was written "
            f"after that; {self._last_good()}. Lower the learning rate or rho, or set "
            f"on_nonfinite=skip."
        )

    def _measure(self, stop: Callable[[], bool], *, last: bool) -> bool:
        """Make the measurements that are due at this step, all of them or none."""
        due = self.evaluations if self._due("eval", last=last) else []
        if self._due("probe", last=last) and self.updates > 0:
            due = [*due, *self.probes]
        if due and not self._measured(stop, due):
            return False
        self.clocks["eval"].advance(self.step)
        self.clocks["probe"].advance(self.step)
        return True

    def _measured(self, stop: Callable[[], bool], due: Sequence[Measurement]) -> bool:
        """Make these measurements; interrupted, leave everything as it was before them."""
        # It waits for the disk, so it is not asked at every step.
        position = self.logger.position
        before, rng = [deepcopy(each.state_dict()) for each in due], rng_state()
        try:
            with cancellable(stop):
                for measurement in due:
                    with self.watch.measure("probe"):
                        row = measurement(self.step)
                    self._note(row)
        except Interrupted:
            for measurement, state in zip(due, before, strict=True):
                measurement.load_state_dict(state)
            self.logger.truncate(position)
            set_rng_state(rng)
            return False
        return True

    def _note(self, row: Mapping[str, float]) -> None:
        if row:
            self._write(row)
        score = row.get("eval/return_mean")
        if score is not None and score > self.best and self.updates > 0:
            self.best = score
            self.checkpoints.save_best(self.agent.state_dict(), step=self.step, score=score)

    def _report(self, *, last: bool) -> None:
        """Log and save if it is due; the checkpoint comes last and holds all the clocks."""
        if self._due("log", last=last) and self.step > 0:
            self._log()
        self.clocks["log"].advance(self.step)
        save = self._due("checkpoint", last=last) or last
        self.clocks["checkpoint"].advance(self.step)
        if save:
            self.save()

    def _due(self, clock: str, *, last: bool) -> bool:
        """Say whether it is due; what is on at all is due once more at the end of the run."""
        return self.clocks[clock].due(self.step) or (last and self.clocks[clock].interval > 0)

    def _log(self) -> None:
        row = self.meter.pop() | self.collector.meter.pop() | self.watch.pop()
        row["train/updates"] = float(self.updates)
        if self.updates > 0:
            row["optim/param_norm"] = float(self.agent.param_norm())
            row["optim/evaluations_total"] = self.evaluations_total
        row["time/rss_bytes"] = rss_bytes()
        self._write(row)

    def _write(self, row: Mapping[str, float]) -> None:
        self.logger.write(row, step=self.step, frame=self.step * self.collector.action_repeat)

    def save(self) -> None:
        """Write a checkpoint."""
        self.checkpoints.save_latest(self.state_dict(), self.replay)
        self.saved_step = self.step

    def state_dict(self) -> dict[str, Any]:
        """Everything but the replay."""
        return {
            "step": self.step,
            "updates": self.updates,
            "evaluations_total": self.evaluations_total,
            "best": float(self.best),
            "finished": self.finished,
            "owed": self.pending_updates.pending,
            "clocks": {name: clock.next for name, clock in self.clocks.items()},
            "meter": self.meter.state_dict(),
            "rng": rng_state(),
            "replay_rng": self.replay_rng.bit_generator.state,
            "sampler": self.sampler.state_dict(),
            "agent": self.agent.state_dict(),
            "collector": self.collector.state_dict(),
            "measurements": [m.state_dict() for m in (*self.evaluations, *self.probes)],
            "log_position": self.logger.position,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave, the replay included; the random streams come last."""
        self.step, self.updates = state["step"], state["updates"]
        self.evaluations_total, self.best = state["evaluations_total"], state["best"]
        self.saved_step = self.step
        self.finished = state["finished"] and self.step >= self.config.steps
        self.pending_updates.pending = state["owed"]
        for name, clock in self.clocks.items():
            clock.next = state["clocks"][name]
        self.meter.load_state_dict(state["meter"])
        self.replay_rng.bit_generator.state = state["replay_rng"]
        self.sampler.load_state_dict(state.get("sampler", {}))
        self.agent.load_state_dict(state["agent"])
        self.checkpoints.restore_replay(state, self.replay)
        self.collector.load_state_dict(state["collector"])
        measurements = (*self.evaluations, *self.probes)
        for measurement, saved in zip(measurements, state["measurements"], strict=True):
            measurement.load_state_dict(saved)
        self.logger.truncate(state["log_position"])
        set_rng_state(state["rng"])
