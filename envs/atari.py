"""Atari games as Atari-100k plays them: 64x64 RGB, one action for four frames.

A step repeats one action for ``action_repeat`` frames of the emulator and shows the brighter of
the last two at every pixel, since many games draw their objects on every other frame only. An
episode begins with 1 to ``noop_max`` frames without an action and ends with the game.

A lost life can be recorded. The game itself always continues, so that returns and
evaluations are those of whole games; what changes is what is recorded (see ``LIFE_LOSS``).

References:
    Bellemare et al., "The Arcade Learning Environment", 2013, arXiv:1207.4708.
    Kaiser et al., "Model-Based Reinforcement Learning for Atari", 2020, arXiv:1903.00374: the
    26 games and 100k steps.
    Machado et al., "Revisiting the Arcade Learning Environment", 2018, arXiv:1709.06009: sticky
    actions.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from mbrl_flat.envs.frames import AreaResize, FrameStack
from mbrl_flat.envs.wrappers import Resumable
from mbrl_flat.errors import MissingExtraError, UnknownNameError, UserError
from mbrl_flat.evaluation.reference_scores import reference_curves
from mbrl_flat.settings import check_number

ATARI_100K = (
    "alien", "amidar", "assault", "asterix", "bank_heist", "battle_zone", "boxing", "breakout",
    "chopper_command", "crazy_climber", "demon_attack", "freeway", "frostbite", "gopher", "hero",
    "jamesbond", "kangaroo", "krull", "kung_fu_master", "ms_pacman", "pong", "private_eye",
    "qbert", "road_runner", "seaquest", "up_n_down",
)  # fmt: skip
"""The games of the benchmark; every other game of ale-py can be played too."""

LIFE_LOSS = ("ignore", "terminate", "split")
"""What a lost life is recorded as: nothing; a termination within the episode, as STORM does; or a
termination with which the recorded episode ends and another begins."""


def make(
    task: str,
    *,
    seed: int,
    render: bool = False,
    action_repeat: int = 4,
    size: int = 64,
    noop_max: int = 30,
    noop_min: int = 1,
    sticky: float = 0.0,
    life_loss: str = "ignore",
    full_action_space: bool = False,
    max_frames: int = 108_000,
    frame_stack: int = 1,
) -> gym.Env[Any, Any]:
    """Build one game.

    Args:
        task: Name in snake_case such as ``ms_pacman``.
        seed: Determines every episode.
        render: Allow ``render()``, which gives the screen at its full size.
        action_repeat: Frames per step.
        size: Height and width of the observation.
        noop_max: Most frames without an action at the start of an episode; 0 for none.
        noop_min: Fewest, where there are any: 1, or 0 as in DreamerV3's code.
        sticky: Probability that a frame repeats the action of the frame before; 0.25 in the
            protocol of Machado et al., 0 in Atari-100k.
        life_loss: One of ``LIFE_LOSS``.
        full_action_space: All 18 actions instead of those that the game uses.
        max_frames: Longest episode; then it is truncated.
        frame_stack: Newest observations joined along the channels.

    Returns:
        The environment: observations ``{"rgb": [3 * frame_stack, size, size]}`` in uint8,
        discrete actions.

    Raises:
        UserError: If a setting is out of range.
        UnknownNameError: If there is no such game.
    """
    check_number("env.size", size, "[8, 160]", whole=True)
    check_number("env.sticky", sticky, "[0, 1)")
    check_number("env.noop_max", noop_max, "[0, inf)", whole=True)
    check_number("env.noop_min", noop_min, "[0, 1]", whole=True)
    counts = {"action_repeat": action_repeat, "frame_stack": frame_stack, "max_frames": max_frames}
    for name, value in counts.items():
        check_number(f"env.{name}", value, "[1, inf)", whole=True)
    _check_life_loss(life_loss, frame_stack)
    game = AtariGame(
        task, seed=seed, render=render, action_repeat=action_repeat, size=size, noop_max=noop_max,
        noop_min=noop_min, sticky=sticky, life_loss=life_loss, full_action_space=full_action_space,
        max_frames=max_frames, frame_stack=frame_stack,
    )  # fmt: skip
    return Resumable(
        game,
        episode_length=-(-max_frames // action_repeat),
        action_repeat=action_repeat,
        frame_stack=frame_stack,
        score_range=human_range(task),
    )


def human_range(task: str) -> tuple[float, float] | None:
    """Returns of random play and of a human, where they are published: 0 and 1 of the score."""
    if task not in ATARI_100K:
        return None
    curves = reference_curves("atari", task)
    return curves["random"][0].mean, curves["human"][0].mean


def _check_life_loss(life_loss: str, frame_stack: int) -> None:
    if life_loss not in LIFE_LOSS:
        raise UnknownNameError("life_loss", life_loss, LIFE_LOSS, where="env=atari")
    if life_loss == "split" and frame_stack > 1:
        raise UserError(
            f"env.life_loss=split takes env.frame_stack=1, got {frame_stack}: the game's stack "
            f"continues over a lost life, where the replay's starts again."
        )


class AtariGame(gym.Env[Any, Any]):
    """One game on one emulator.

    Its randomness (the length of the no-op start, sticky actions) follows from ``np_random``
    alone; the emulator itself draws nothing.

    Args:
        task: Name of the game, as in ``env.task``.
        seed: Determines every episode of this environment.
        render: Whether ``render()`` will be called, as for videos.
        action_repeat: Frames per step.
        size: Height and width of the observation.
        noop_max: Most frames without an action at the start.
        noop_min: Fewest actions without effect at the start of an episode, at least 0.
        sticky: Probability that a frame repeats the action of the frame before.
        life_loss: One of ``LIFE_LOSS``.
        full_action_space: All 18 actions.
        max_frames: Frames after which an episode is truncated.
        frame_stack: Newest observations joined.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 - as in Gymnasium

    def __init__(
        self,
        task: str,
        *,
        seed: int,
        render: bool,
        action_repeat: int,
        size: int,
        noop_max: int,
        noop_min: int,
        sticky: float,
        life_loss: str,
        full_action_space: bool,
        max_frames: int,
        frame_stack: int,
    ) -> None:
        self._ale = _emulator(task)
        legal = self._ale.getLegalActionSet() if full_action_space else None
        self._actions = [action.value for action in legal or self._ale.getMinimalActionSet()]
        self.render_mode = "rgb_array" if render else None
        self.action_repeat, self.sticky = action_repeat, sticky
        self.noop_max, self.noop_min = noop_max, noop_min
        self.life_loss, self.max_frames = life_loss, max_frames
        height, width = self._ale.getScreenDims()
        self._resize = AreaResize(height, width, size)
        self._stack = FrameStack(frame_stack)
        self._frames, self._lives, self._last = 0, 0, self._actions[0]
        shape = (3 * frame_stack, size, size)
        self.observation_space = gym.spaces.Dict({"rgb": gym.spaces.Box(0, 255, shape, np.uint8)})
        self.action_space = gym.spaces.Discrete(len(self._actions))
        self.np_random = np.random.default_rng(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start a game and let a random number of frames pass."""
        super().reset(seed=seed, options=options)
        self._ale.reset_game()
        self._last = self._actions[0]
        most = self.noop_max
        for _ in range(self.np_random.integers(self.noop_min, most + 1) if most else 0):
            self._act(self._actions[0])
            if self._ale.game_over(with_truncation=False):
                self._ale.reset_game()
        self._frames, self._lives = 0, self._ale.lives()
        return {"rgb": self._stack.begin(self._resize(self._ale.getScreenRGB()))}, {}

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Repeat one action; rewards are summed, and are never clipped."""
        chosen, reward, terminated = self._actions[int(action)], 0.0, False
        seen: list[np.ndarray] = []
        for index in range(self.action_repeat):
            reward += self._act(chosen)
            self._frames += 1
            terminated = self._ale.game_over(with_truncation=False)
            if terminated or index >= self.action_repeat - 2:
                seen.append(self._ale.getScreenRGB())
            if terminated:
                break
        image = np.maximum(seen[0], seen[-1])
        truncated = self._frames >= self.max_frames and not terminated
        obs = {"rgb": self._stack.push(self._resize(image))}
        return obs, reward, terminated, truncated, self._lost_life()

    def _act(self, action: int) -> float:
        """Advance one frame; with probability ``sticky`` by the action of the frame before."""
        if self.sticky == 0.0 or self.np_random.random() >= self.sticky:
            self._last = action
        return float(self._ale.act(self._last))

    def _lost_life(self) -> dict[str, Any]:
        lives = self._ale.lives()
        lost, self._lives = lives < self._lives, lives
        if self.life_loss == "ignore":
            return {}
        return {"life_lost": lost, "new_episode": lost and self.life_loss == "split"}

    def save_state(self) -> dict[str, Any]:
        """The emulator's state and all else that the rest of the episode depends on."""
        return {
            "emulator": torch.frombuffer(
                bytearray(self._ale.cloneState(include_rng=True).serialize()), dtype=torch.uint8
            ),
            "stack": torch.from_numpy(self._stack.joined().copy()),
            "frames": self._frames,
            "lives": self._lives,
            "last": self._last,
        }

    def load_state(self, state: dict[str, Any]) -> dict[str, np.ndarray]:
        """Put back what ``save_state`` gave, and return the current observation."""
        emulator = _package().ALEState(state["emulator"].numpy().tobytes())
        self._ale.restoreState(emulator)
        self._stack.restore(state["stack"].numpy())
        self._frames, self._lives = state["frames"], state["lives"]
        self._last = state["last"]
        return {"rgb": self._stack.joined()}

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The screen ``[210, 160, 3]``, uint8; ``None`` where rendering was not asked for."""
        return None if self.render_mode is None else self._ale.getScreenRGB()


def _package() -> Any:
    try:
        import ale_py  # noqa: PLC0415 - the only users of the emulator pay for it
    except ImportError as error:
        raise MissingExtraError(
            "env=atari needs ale-py, which brings the games", "atari"
        ) from error
    return ale_py


def _emulator(task: str) -> Any:
    """Load a game; the emulator repeats no action by itself and has no limit of its own."""
    package = _package()
    known = package.roms.get_all_rom_ids()
    if task not in known:
        raise UnknownNameError("game", task, known, where="env=atari")
    package.ALEInterface.setLoggerMode(package.LoggerMode.Error)
    emulator = package.ALEInterface()
    emulator.setInt("random_seed", 0)
    emulator.setInt("max_num_frames_per_episode", 0)
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(package.roms.get_rom_path(task))
    return emulator
