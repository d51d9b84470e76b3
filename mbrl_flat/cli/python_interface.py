"""Agents from Python, with the habits of Stable-Baselines3.

.. code-block:: python

    from mbrl_flat import TDMPC2

    agent = TDMPC2("walker-walk", preset="cpu", optimizer="sam", rho=0.01)
    agent.learn(20_000)
    action = agent.predict(obs)

Below is the code of the commands: ``learn`` makes the run of ``mbrl-flat-train``, bit for bit.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
from omegaconf import OmegaConf

from mbrl_flat.cli import commands
from mbrl_flat.cli.composition import pretrained_folder, set_values
from mbrl_flat.cli.environment_units import EnvMaker, env_maker, given_factory
from mbrl_flat.cli.predictor import Predictor
from mbrl_flat.cli.run_arguments import check_environment, compose_arguments
from mbrl_flat.errors import UserError
from mbrl_flat.evaluation.multitask import shapes_of
from mbrl_flat.interfaces import Mode
from mbrl_flat.optim.signature import names_arguments
from mbrl_flat.runs.callbacks import Callbacks
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.evaluate import evaluate_run
from mbrl_flat.runs.export import export_run
from mbrl_flat.runs.folder import new_run_folder, writing
from mbrl_flat.runs.loading import load_agent
from mbrl_flat.runs.parts import Parts, build_agent
from mbrl_flat.runs.train import train_run
from mbrl_flat.runtime.device import choose_device
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.settings import check_number
from mbrl_flat.training.checkpoint import load_safely


@names_arguments
class TrainableAgent:
    """An agent, its environment and its run folder.

    Args:
        env: A task of ``env=dmc`` (``walker-walk``), the id of a Gymnasium environment
            (``Pendulum-v1``), ``SUITE:TASK`` (``atari:pong``, ``minatar:breakout``), or a function
            without arguments that makes a Gymnasium environment. An environment object is copied.
        preset: Size: ``default`` (as published), ``cpu`` or ``debug``.
        optimizer: Name in the registry of optimizers.
        rho: Radius of a sharpness-aware optimizer; its default where None.
        seed: Determines every random draw.
        run_dir: Folder of the run; by default one below ``runs``.
        settings: Further keys of the configuration by their dotted names, as on the command line:
            ``{"eval_every": 5000, "agent.config.horizon": 5, "optimizer/base": "sgd"}``.

    Raises:
        UserError: If a name or a value is not allowed.
        TypeError: If there is no such argument.
    """

    agent_name: ClassVar[str]

    def __init__(
        self,
        env: str | EnvMaker | gym.Env[Any, Any],
        *,
        preset: str = "default",
        optimizer: str = "adam",
        rho: float | None = None,
        seed: int = 0,
        run_dir: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._env = None if isinstance(env, str) else env_maker(env)
        self._cfg = compose_arguments(
            self.agent_name, env, settings, preset=preset, optimizer=optimizer, rho=rho, seed=seed
        )
        if run_dir is not None:
            self._cfg.run_dir = str(run_dir)
        self.folder: Path | None = None
        self._predictor: Predictor | None = None
        self._built()

    def learn(
        self,
        steps: int,
        *,
        progress: bool = False,
        on_step: Callable[[int], None] | None = None,
        on_evaluation: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> Self:
        """Train for ``steps`` more agent steps, in the run's folder.

        A first call is the run of ``mbrl-flat-train steps=STEPS``, a further one that of
        ``mbrl-flat-train resume=FOLDER steps=TOTAL``. Ctrl-C saves a checkpoint first.

        Args:
            steps: Agent steps to make beyond those made, at least 1.
            progress: Show a progress bar.
            on_step: Called with the number of steps made, whenever it changes.
            on_evaluation: Called with the step and the metrics of every evaluation.

        Returns:
            The agent itself.

        Raises:
            UserError: If the run cannot be made.
            KeyboardInterrupt: After Ctrl-C, when all is saved.
        """
        check_number("steps", steps, "[1, inf)", whole=True)
        callbacks = Callbacks(on_step=on_step, on_evaluation=on_evaluation)
        new, file = self.folder is None, self._checkpoint
        if file is not None and file.exists() and load_safely(file).get("weights_only"):
            raise UserError(
                "A pretrained agent holds weights alone and cannot be resumed; the command of its "
                "card trains one: mbrl_flat.pretrained.CARDS."
            )
        total = steps + (0 if new else self.steps)
        set_values(self._cfg, {"steps": total, "progress": progress})
        config, parts = self._built()
        if self.folder is None:
            self.folder = new_run_folder(self._cfg.run_dir, config.names, config.seed)
            self._cfg.run_dir = str(self.folder)
            config, parts = self._built()
        with writing(self.folder, new=new):
            text = OmegaConf.to_yaml(self._cfg, resolve=True)
            write_text_atomically(self.folder / "config.yaml", text)
            status = train_run(config, parts, self.folder, callbacks=callbacks)
        self._predictor = None
        if status:
            raise KeyboardInterrupt
        return self

    def __repr__(self) -> str:
        names = self._cfg.names
        return (
            f"{type(self).__name__}({names['task']}, preset={self._cfg.preset}, "
            f"optimizer={names['optimizer']}, steps={self.steps}, folder={self.folder})"
        )

    @property
    def steps(self) -> int:
        """Agent steps made so far."""
        file = self._checkpoint
        return 0 if file is None or not file.exists() else int(load_safely(file)["step"])

    @property
    def _checkpoint(self) -> Path | None:
        return None if self.folder is None else self.folder / "checkpoints" / "latest.pt"

    def predict(
        self, obs: Any, *, is_first: bool | np.ndarray = False, mode: Mode = "eval", seed: int = 0
    ) -> np.ndarray:
        """Choose actions for observations as the environment gives them.

        The planner's or the recurrent state is kept from call to call, one for each row; it is
        reset where ``is_first``, and when the number of rows changes.

        Args:
            obs: One observation, or a batch of them: each entry with a leading axis ``[N, ...]``.
            is_first: Whether an episode begins, one for all rows or ``[N]``.
            mode: ``eval``, ``explore``, or ``policy`` without planning.
            seed: Of the actions' noise, read when the state begins.

        Returns:
            An action, or a batch ``[N, ...]``, in the environment's units.
        """
        return self._loaded().predict(obs, is_first=is_first, mode=mode, seed=seed)

    def evaluate(self, episodes: int = 10, *, seed: int = 1000) -> dict[str, float]:
        """Play fresh episodes; the row of ``mbrl-flat-evaluate``."""
        folder = self._learned()
        how = {"checkpoint": "latest", "video": False, "episodes": episodes, "seed": seed}
        return evaluate_run(*self._built(), folder, **how)

    def save(self, path: str | Path) -> Path:
        """Copy the run's configuration and newest checkpoint to a folder that ``load`` reads.

        Args:
            path: The folder; it must not exist or be empty.

        Returns:
            The folder.

        Raises:
            UserError: If nothing was learned yet or the folder holds files.
        """
        made, folder = self._learned(), Path(path).expanduser()
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} exists and is never overwritten; choose another path.")
        shutil.copytree(made / "checkpoints", folder / "checkpoints")
        for name in ("config.yaml", "environment.json", "metrics.jsonl"):
            shutil.copy2(made / name, folder / name)
        return folder

    def export(
        self, out: str | Path | None = None, *, format: str = "torch", rows: int = 1
    ) -> list[Path]:
        """Write the agent as programs that need no mbrl_flat, as ``mbrl-flat-export`` does.

        Args:
            out: Folder of the files; ``export`` in the run's folder by default.
            format: ``torch`` (``torch.export``) or ``onnx``.
            rows: Observations that a program takes at once.

        Returns:
            The files written.

        Raises:
            UserError: If nothing was learned yet or a value is not allowed.
        """
        folder = self._learned()
        to = folder / "export" if out is None else Path(out).expanduser()
        how = {"format": format, "rows": rows, "checkpoint": "latest", "out": to}
        return export_run(*self._built(), folder, **how)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        env: EnvMaker | gym.Env[Any, Any] | None = None,
        trust: str | Sequence[str] | None = None,
    ) -> Self:
        """Read what ``save`` wrote, or any run folder of this agent; nothing in it is executed.

        Args:
            path: A folder that ``save`` wrote, or the folder of a run.
            env: The environment, where it was given as an object or a function.
            trust: Modules outside of mbrl_flat whose code the folder may execute, such as that of
                an environment of yours.

        Returns:
            An agent that predicts, and learns on where its run stopped.

        Raises:
            UserError: If there is no such run, it is another agent's, or the environment has
                other observations or actions than the run's.
        """
        saved, folder = commands.load_run(str(path), trust=trust)
        if saved.names["agent"] != cls.agent_name:
            raise UserError(f"{path} is a run of {saved.names['agent']}, not of {cls.agent_name}.")
        found = cls.__new__(cls)
        found._cfg, found.folder = saved, folder
        found._cfg.run_dir = str(folder)
        found._env = None if env is None else env_maker(env)
        found._predictor = None
        if env is not None:
            check_environment(*found._built(), folder)
        return found

    @classmethod
    def load_pretrained(cls, name: str) -> Self:
        """A small agent that comes with mbrl_flat; weights alone, so it does not learn on.

        Args:
            name: A key of ``mbrl_flat.pretrained.CARDS``, such as ``walker-stand``.

        Returns:
            An agent that predicts and evaluates.

        Raises:
            UserError: If there is no such agent, or it is another class's.
        """
        return cls.load(pretrained_folder(name))

    def _learned(self) -> Path:
        file = self._checkpoint
        if self.folder is None or file is None or not file.exists():
            raise UserError("This agent has not learned yet; call learn(steps) or load(path).")
        return self.folder

    def _built(self) -> tuple[RunConfig, Parts]:
        config, parts = commands.build_run(self._cfg)
        if self._env is not None:
            parts = replace(parts, env=given_factory(self._env, parts.env))
        return config, parts

    def _loaded(self) -> Predictor:
        """The agent at its newest checkpoint, or as it begins."""
        if self._predictor is None:
            config, parts = self._built()
            device, file = choose_device(config.device), self._checkpoint
            spec = shapes_of(parts.vectors, parts.env, seed=config.seed)
            agent = build_agent(config, parts, spec, device)
            if file is not None:
                load_agent(agent, load_safely(file, device=device), spec, file)
            self._predictor = Predictor(agent, spec, parts.env(seed=config.seed), device)
        return self._predictor


class TDMPC2(TrainableAgent):
    """TD-MPC2: planning with a latent world model, Hansen et al., arXiv:2310.16828."""

    agent_name = "tdmpc2"


class DreamerV3(TrainableAgent):
    """DreamerV3: an actor-critic in a recurrent world model, Hafner et al., arXiv:2301.04104."""

    agent_name = "dreamerv3"


class STORM(TrainableAgent):
    """STORM: an actor-critic in a transformer world model, Zhang et al., arXiv:2310.09615."""

    agent_name = "storm"


class TWISTER(TrainableAgent):
    """TWISTER: a transformer world model with contrastive learning, Burchi and Timofte, 2025."""

    agent_name = "twister"
