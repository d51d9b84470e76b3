"""The eleven tasks that TD-MPC2's set of 39 has and the DeepMind Control suite has not.

Each is a domain of the suite with another reward; the three-link reacher has one link more, and
the spinning ball mostly starts inside its cup. Rewards lie in [0, 1] a frame.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, appendix; tasks as in the official code
    at e9f5932. ``tolerance`` is that of Tassa et al., arXiv:1801.00690.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
from dm_control.rl import control
from dm_control.suite import ball_in_cup, cheetah, common, hopper, pendulum, reacher, walker
from dm_control.utils import rewards

_WALKER_HEIGHT = 1.2
_CHEETAH_HEIGHT, _STANDING_SPEED, _ONE_FOOT_SPEED, _BACKWARDS_SPEED = 1.2, 0.5, 6.0, 8.0
_HOPPER_HEIGHTS, _HOPPING_SPEED = (0.6, 2.0), 1.0
_PENDULUM_SPEED = 9.0
_BALL_DISTANCE, _BALL_SPEED = 0.5, 6.0
_START_OUTSIDE = 0.1
_LINK, _BEND = ".09", "-80 80"


def walk_backwards(physics: Any, *, speed: float) -> float:
    """Reward of the suite's walker for ``speed`` in m/s to the other side."""
    height = _tall(physics.torso_height(), _WALKER_HEIGHT)
    standing = (3.0 * height + (1.0 + physics.torso_upright()) / 2.0) / 4.0
    return standing * (5.0 * _at_least(-physics.horizontal_velocity(), speed) + 1.0) / 6.0


def run_backwards(physics: Any) -> float:
    """Speed of the cheetah to the other side, full at 8 m/s."""
    return _from_nothing(-physics.speed(), _BACKWARDS_SPEED)


def jump(physics: Any) -> float:
    """Torso and each foot of the cheetah up, without going anywhere."""
    return (_stand_up(physics, "bfoot") + _stand_up(physics, "ffoot")) / 2.0


def _stand_up(physics: Any, foot: str) -> float:
    height = (_height(physics, "torso") + _height(physics, foot)) / 2.0
    still = _linear(-abs(physics.speed()), -_STANDING_SPEED, margin=_STANDING_SPEED, at_margin=0.0)
    return (5.0 * _tall(height, _CHEETAH_HEIGHT) + still) / 6.0


def run_on_one_foot(physics: Any, *, raised: str) -> float:
    """Speed of the cheetah, full at 6 m/s, with one foot and the torso up."""
    foot, torso = (_tall(_height(physics, body), _CHEETAH_HEIGHT) for body in (raised, "torso"))
    up = (3.0 * foot + 2.0 * torso) / 5.0
    return up * (5.0 * _from_nothing(physics.speed(), _ONE_FOOT_SPEED) + 1.0) / 6.0


def hop_backwards(physics: Any) -> float:
    """Speed of the hopper to the other side, full at 1 m/s, while it stands."""
    low, high = _HOPPER_HEIGHTS
    return (low <= physics.height() <= high) * _at_least(-physics.speed(), _HOPPING_SPEED)


def spin_pendulum(physics: Any) -> float:
    """Angular speed of the pendulum, either way, full at 9 rad/s."""
    return _at_least(float(np.linalg.norm(physics.angular_velocity())), _PENDULUM_SPEED)


def spin_ball(physics: Any) -> float:
    """Distance of the ball from the cup's inside, and its speed; nothing while it is in there."""
    distance = _at_least(float(np.linalg.norm(physics.ball_to_target())), _BALL_DISTANCE)
    velocity = physics.named.data.qvel[["ball_x", "ball_z"]]
    speed = _at_least(float(np.linalg.norm(velocity)), _BALL_SPEED)
    return (1.0 - physics.in_target()) * (distance + 2.0 * speed) / 3.0


def _at_least(value: float, bound: float) -> float:
    """1 from the bound on, a half at half of it, nothing at zero."""
    return _linear(value, bound, margin=bound / 2.0, at_margin=0.5)


def _from_nothing(speed: float, bound: float) -> float:
    """Rises linearly from zero speed to 1 at the bound."""
    return _linear(speed, bound, margin=bound, at_margin=0.0)


def _linear(value: float, bound: float, *, margin: float, at_margin: float) -> float:
    above = (bound, float("inf"))
    return float(
        rewards.tolerance(value, above, margin, sigmoid="linear", value_at_margin=at_margin)
    )


def _tall(height: float, bound: float) -> float:
    """1 from the bound on, with a Gaussian tail that is 0.1 at half of it."""
    return float(rewards.tolerance(height, (bound, float("inf")), margin=bound / 2.0))


def _height(physics: Any, body: str) -> float:
    return float(physics.named.data.xpos[body, "z"])


class BallAtHome(ball_in_cup.BallInCup):
    """The ball starts inside the cup, but for one episode in ten, which starts anywhere."""

    def initialize_episode(self, physics: Any) -> None:
        """Draw positions without contact until one is allowed."""
        anywhere = self.random.uniform() < _START_OUTSIDE
        while True:
            super().initialize_episode(physics)
            if anywhere or physics.in_target():
                return


def three_links() -> str:
    """The suite's reacher with arm, forearm and hand of 0.09 m, whose joints bend by 80 degrees."""
    xml, _ = reacher.get_model_and_assets()
    root = ElementTree.fromstring(xml)
    world, motors = root.find("worldbody"), root.find("actuator")
    assert world is not None
    assert motors is not None
    arm = _named(world, "body", "arm")
    hand = _named(arm, "body", "hand")
    link = _named(arm, "geom", "arm")
    link.set("fromto", f"0 0 0 {_LINK} 0 0")
    forearm = ElementTree.SubElement(arm, "body", name="forearm", pos=f"{_LINK} 0 0")
    ElementTree.SubElement(forearm, "geom", {**link.attrib, "name": "forearm"})
    ElementTree.SubElement(forearm, "joint", name="elbow", limited="true", range=_BEND)
    arm.remove(hand)
    forearm.append(hand)
    hand.set("pos", f"{_LINK} 0 0")
    _named(hand, "joint", "wrist").set("range", _BEND)
    _named(hand, "body", "finger").set("pos", f"{_LINK} 0 0")
    motors.insert(1, ElementTree.Element("motor", name="elbow", joint="elbow"))
    return ElementTree.tostring(root, encoding="unicode")


def _named(parent: ElementTree.Element, tag: str, name: str) -> ElementTree.Element:
    found = parent.find(f"{tag}[@name='{name}']")
    assert found is not None
    return found


@dataclass(frozen=True, kw_only=True)
class CustomTask:
    """A domain of the suite with a task of its own.

    Attributes:
        domain: Module of the suite.
        kind: Class of the task.
        settings: Keyword arguments of the task's constructor, by name.
        reward: Replaces its reward, as a function of the physics.
        model: Replaces the domain's model.
        ground: A plane that the suite draws on one side of the start only.
    """

    domain: ModuleType
    kind: type[Any]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    reward: Callable[[Any], float] | None = None
    model: Callable[[], str] | None = None
    ground: str | None = None

    def build(self, random: np.random.RandomState) -> control.Environment:
        """Make the environment.

        Args:
            random: Where the task draws from.

        Returns:
            The environment, with the time limit and the control step of the domain.
        """
        xml = self.domain.get_model_and_assets()[0] if self.model is None else self.model()
        physics = self.domain.Physics.from_xml_string(xml, common.ASSETS)
        if self.ground is not None:
            # Planes are infinite to what touches them; the size is what is seen.
            physics.named.model.geom_size[self.ground, "x"] *= 2.0
        kind = self.kind if self.reward is None else _rewarded(self.kind, self.reward)
        return control.Environment(
            physics,
            kind(random=random, **self.settings),
            time_limit=self.domain._DEFAULT_TIME_LIMIT,
            # A domain without one takes a step of its physics as a frame.
            control_timestep=getattr(self.domain, "_CONTROL_TIMESTEP", None),
        )


def _rewarded(kind: type[Any], reward: Callable[[Any], float]) -> type[Any]:
    """The class ``kind`` of tasks with another reward."""

    class Rewarded(kind):
        def get_reward(self, physics: Any) -> float:
            return reward(physics)

    return Rewarded


def _walker(speed: float) -> CustomTask:
    reward = partial(walk_backwards, speed=speed)
    settings = {"move_speed": speed}
    return CustomTask(
        domain=walker, kind=walker.PlanarWalker, settings=settings, reward=reward, ground="floor"
    )


def _cheetah(reward: Callable[[Any], float]) -> CustomTask:
    return CustomTask(domain=cheetah, kind=cheetah.Cheetah, reward=reward, ground="ground")


def _reacher(target_size: float) -> CustomTask:
    settings = {"target_size": target_size}
    return CustomTask(domain=reacher, kind=reacher.Reacher, settings=settings, model=three_links)


TASKS: Mapping[tuple[str, str], CustomTask] = {
    ("walker", "walk_backwards"): _walker(1.0),
    ("walker", "run_backwards"): _walker(8.0),
    ("cheetah", "run_backwards"): _cheetah(run_backwards),
    ("cheetah", "jump"): _cheetah(jump),
    ("cheetah", "run_front"): _cheetah(partial(run_on_one_foot, raised="bfoot")),
    ("cheetah", "run_back"): _cheetah(partial(run_on_one_foot, raised="ffoot")),
    ("hopper", "hop_backwards"): CustomTask(
        domain=hopper, kind=hopper.Hopper, settings={"hopping": True}, reward=hop_backwards
    ),
    ("pendulum", "spin"): CustomTask(domain=pendulum, kind=pendulum.SwingUp, reward=spin_pendulum),
    ("ball_in_cup", "spin"): CustomTask(domain=ball_in_cup, kind=BallAtHome, reward=spin_ball),
    ("reacher", "three_easy"): _reacher(0.05),
    ("reacher", "three_hard"): _reacher(0.015),
}
"""Every task by domain and name."""
