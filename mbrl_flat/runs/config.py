"""The keys of a run's configuration, with their types; ``configs/train.yaml`` gives the values."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbrl_flat.data.mirror import MIRROR_CHOICES
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.evaluation.episodes import EvaluationConfig
from mbrl_flat.logging.wandb import WANDB_MODES
from mbrl_flat.runs.objective import check_objective
from mbrl_flat.runtime.device import check_threads
from mbrl_flat.runtime.seeding import check_seed
from mbrl_flat.settings import check_number
from mbrl_flat.training.energy_sampler import SelectionConfig
from mbrl_flat.training.train_config import TrainConfig


@dataclass(kw_only=True)
class WandbConfig:
    """Mirror of the metrics in Weights & Biases.

    Attributes:
        mode: ``disabled``, ``offline``, ``online``, or ``auto`` (what the environment variable
            ``WANDB_MODE`` says, else offline).
        project: Name of the W&B project that the run appears in.
        entity: Account or team; the default one if null.
        group: Group of runs; by default the seeds of one setting, as in ``mbrl-flat-compare``.
        tags: Labels beside task, agent, optimizer and preset.
    """

    mode: str = "disabled"
    project: str = "mbrl_flat"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """The replay of a run.

    Attributes:
        capacity: Transitions that it holds.
        heldout_fraction: Share of episodes that the probes alone see.
        storage: ``memory`` or ``disk``.
        mirror: Copy on the device: ``always``, ``never`` or ``auto``.
        selection: How the subsequences of a batch are chosen.
    """

    capacity: int
    heldout_fraction: float
    storage: str
    mirror: str
    selection: SelectionConfig

    def __post_init__(self) -> None:
        for name, known in (("storage", ("memory", "disk")), ("mirror", MIRROR_CHOICES)):
            if getattr(self, name) not in known:
                raise UnknownNameError(f"replay_{name}", getattr(self, name), known)
        check_number("replay_capacity", self.capacity, "[1, inf)", whole=True)
        check_number("heldout_fraction", self.heldout_fraction, "[0, 1)")

    def folder(self, run: Path) -> Path | None:
        """Where the arrays are kept on the disk; ``None`` keeps them in memory."""
        return run / "replay" if self.storage == "disk" else None


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """Where the metrics of a run go.

    Attributes:
        steps: Length of the run, for the progress bar.
        progress: Whether to show a progress bar.
        wandb: Mirror in Weights & Biases.
    """

    steps: int
    progress: bool
    wandb: WandbConfig

    def __post_init__(self) -> None:
        if self.wandb.mode not in WANDB_MODES:
            raise UnknownNameError("W&B mode", self.wandb.mode, WANDB_MODES)


@dataclass(kw_only=True)
class RunConfig:
    """Everything that defines a run, by the keys that a user types.

    The parts of a run take ``schedule``, ``replay_config``, ``evaluation`` and ``logging``, which
    check the values that they are made of.

    Attributes:
        agent: What to build as the agent.
        env: What to build as one environment.
        optimizer: What to build as the world model's optimizer.
        probes: Diagnostics by name.
        names: Names of the agent, env, task and optimizer, for tables; filled in by the command.
        seed: Determines every random draw.
        steps: Length in agent steps.
        model_lr: Learning rate of the world model.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: CPU threads of torch; 0 chooses by the machine.
        compile: Compile the loss and the planner; ``auto`` does where a compiler is there, the run
            is long enough to pay for it, and no fused operators of a CPU are used instead.
        tf32: Multiply float32 matrices in TF32 on a CUDA device, as the published runs of TD-MPC2.
        preset: Size: ``default`` (published), ``cpu`` or ``debug``.
        run_dir: The run's folder; by default ``runs/`` and a name.
        resume: Folder of a run to resume.
        trust: Modules outside of mbrl_flat whose code a resumed run's folder may execute; one name
            or a list.
        debug: Show the traceback of an error beside its message.
        progress: Show a progress bar.
        on_nonfinite: ``raise`` or ``skip``.
        num_envs: Environments at once.
        parallel_envs: Each environment in a process of its own.
        sync: In a run over several processes (torchrun): ``global`` perturbs by the gradient of
            the whole batch, ``local`` each process by that of its own rows.
        offline_data: Folders of earlier runs, or patterns of them, to learn from alone: nothing is
            collected, and a step is an update.
        updates_per_step: Updates per agent step; 0.5 is one in every second step, 0 none at all.
        seed_steps: Random steps before learning; by default five episodes, within 1000 to 5000.
        log_every: Interval of training metrics in steps.
        eval_every: Interval of evaluations in steps; 0 means never.
        eval_episodes: Episodes of an evaluation.
        probe_every: Interval of the probes in steps; 0 means never.
        checkpoint_every: Interval of checkpoints in steps; 0 means only at the end.
        video: Record the first episode of every evaluation.
        replay_capacity: Transitions that the replay holds.
        replay_mirror: Copy of the replay on the device: ``always``, ``never``, or ``auto``, on an
            accelerator that has room for it.
        replay: How the subsequences of a batch are chosen, see ``SelectionConfig``.
        replay_storage: ``memory``, or ``disk``: mapped from a file in the run's folder.
        heldout_fraction: Share of episodes that the probes alone see.
        objective: Metric whose last value a hyperparameter search is told.
        wandb: Weights & Biases.
    """

    agent: Any = None
    env: Any = None
    optimizer: Any = None
    probes: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    steps: int = 1_000_000
    model_lr: float = 3e-4
    device: str = "auto"
    threads: int = 0
    compile: bool | str = False
    tf32: bool = False
    preset: str = "default"
    run_dir: str | None = None
    resume: str | None = None
    trust: Any = None
    debug: bool = False
    progress: bool = True
    on_nonfinite: str = "raise"
    num_envs: int = 1
    parallel_envs: bool = False
    sync: str = "global"
    offline_data: list[str] = field(default_factory=list)
    updates_per_step: float = 1.0
    seed_steps: int | None = None
    log_every: int = 1000
    eval_every: int = 10_000
    eval_episodes: int = 10
    probe_every: int = 10_000
    checkpoint_every: int = 10_000
    video: bool = False
    replay: SelectionConfig = field(default_factory=SelectionConfig)
    replay_capacity: int = 1_000_000
    replay_mirror: str = "auto"
    replay_storage: str = "memory"
    heldout_fraction: float = 0.05
    objective: str = "eval/return_mean"
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        if self.preset in ("ci", "data", "long", "policy"):
            raise UserError(
                f"preset={self.preset} is for mbrl-flat-supervised only; choose preset=default, "
                f"cpu or debug."
            )
        check_number("model_lr", self.model_lr, "[0, inf)")
        check_number("num_envs", self.num_envs, "[1, inf)", whole=True)
        if self.num_envs > self.steps > 0:  # before any of them is made
            raise UserError(
                f"num_envs={self.num_envs} environments make {self.num_envs} steps at once, more "
                f"than steps={self.steps}; give more steps or fewer environments."
            )
        if self.sync not in ("global", "local"):
            raise UnknownNameError("sync", self.sync, ("global", "local"))
        check_objective(self.objective)
        check_seed(self.seed)
        check_threads(self.threads)
        _ = self.schedule(0), self.replay_config, self.evaluation, self.logging

    def schedule(self, episode_length: int) -> TrainConfig:
        """When things happen in the run, where episodes have this many steps."""
        seed_steps = 0 if self.offline_data else self.seed_steps
        if seed_steps is None:
            seed_steps = min(max(1000, 5 * episode_length), 5000)
        return TrainConfig(
            steps=self.steps,
            seed=self.seed,
            seed_steps=seed_steps,
            updates_per_step=self.updates_per_step,
            log_every=self.log_every,
            eval_every=self.eval_every,
            probe_every=self.probe_every,
            checkpoint_every=self.checkpoint_every,
        )

    @property
    def replay_config(self) -> ReplayConfig:
        """Size and place of the replay, and how batches are drawn from it."""
        return ReplayConfig(
            capacity=self.replay_capacity,
            heldout_fraction=self.heldout_fraction,
            storage=self.replay_storage,
            mirror=self.replay_mirror,
            selection=self.replay,
        )

    @property
    def evaluation(self) -> EvaluationConfig:
        """How the agent is evaluated, on environments with other seeds than those it acts in."""
        return EvaluationConfig(
            episodes=self.eval_episodes,
            seed=self.seed,
            env_seed=self.seed + 1,
            video=self.video,
            names=self.names,
        )

    @property
    def logging(self) -> LoggingConfig:
        """Where metrics go."""
        return LoggingConfig(steps=self.steps, progress=self.progress, wandb=self.wandb)
