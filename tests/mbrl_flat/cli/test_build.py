"""Parts that a configuration describes: built, or refused by the key that is wrong."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import pytest

from mbrl_flat.cli.build import build, build_config, check_arguments, check_value, is_required
from mbrl_flat.errors import UnknownNameError, UserError


class Shared(TypedDict, total=False):
    """Settings of every method."""

    every: int


def method(
    params: Any, *, rho: float | Callable[[int], float] = 0.1, only: Sequence[str] | None = None,
    betas: tuple[float, float] = (0.9, 0.99), mode: Literal["a", "b"] = "a", flag: bool = False,
    **settings: Unpack[Shared],
) -> Any:  # fmt: skip
    return rho, only, betas, mode, flag, settings


@dataclass(kw_only=True)
class Inner:
    size: int = 1

    def __post_init__(self):
        if self.size < 1:
            raise UserError(f"size must be at least 1, got {self.size}.")


@dataclass(kw_only=True)
class Settings:
    name: str = ""
    rate: float = 1.0
    inner: Inner = field(default_factory=Inner)
    tags: list[str] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)
    anything: Any = None


HERE = "mbrl_flat.errors"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rho": "abc"}, "o.rho must be a number, got 'abc'."),
        ({"rho": True}, "o.rho must be a number, got True."),
        ({"rho": None}, "o.rho must be a number, got null."),
        ({"rho": [1]}, "o.rho must be a number, got [1]."),
        ({"every": 1.5}, "o.every must be a whole number, got 1.5."),
        ({"every": ""}, "o.every must be a whole number, got ''."),
        ({"flag": "yess"}, "o.flag must be true or false, got 'yess'."),
        ({"mode": "c"}, "o.mode must be a or b, got 'c'."),
        ({"only": True}, "o.only must be a list, such as [a,b] or null, got True."),
        ({"only": [True]}, "o.only must be a list, such as [a,b] or null, got [True]."),
        ({"betas": 0.9}, "o.betas must be a list, such as [a,b], got 0.9."),
        ({"betas": ["x", 1]}, "o.betas must be a list, such as [a,b], got ['x', 1]."),
        ({"roh": 1}, "Unknown key 'o.roh'; did you mean 'o.rho'?"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(given, message):
    with pytest.raises(UserError) as caught:
        check_arguments(method, given, "o")
    assert str(caught.value) == message


def test_a_name_that_looks_like_a_number_is_given_as_text():
    def sized(size: str, count: int = 1, either: str | int = 2) -> None: ...

    fitting = check_arguments(sized, {"size": 5, "count": 3, "either": 4}, "o")
    assert fitting == {"size": "5", "count": 3, "either": 4}


def test_arguments_that_fit_pass():
    given = {"rho": 1, "only": "encoder", "betas": [0.9, 1], "mode": "b", "every": 3, "flag": True}
    check_arguments(method, given, "o")
    check_arguments(method, {"rho": lambda step: 0.1, "only": None}, "o")
    check_arguments(lambda **anything: 0, {"whatever": "x"}, "o")
    assert is_required(method, "params")
    assert not is_required(method, "rho")


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, float, True), (1.0, int, False), (True, int, False), ("a", Path, True),
        (3, Path, False), ({"a": 1}, Mapping[str, int], True), ("a", Mapping[str, int], False),
        ("a", list[str], False), (["a"], list[str], True), ([None], list[str], False),
        (5, str, True),
        (None, Any, True), (None, object, True), (None, int | None, True), ("a", Inner, False),
        (Inner(), Inner, True), ([], tuple[int, ...], True), ([1, 2.5], tuple[int, ...], False),
    ],
)  # fmt: skip
def test_values_are_held_against_annotations(value, hint, fits):
    if fits:
        check_value("k", value, hint)
    else:
        with pytest.raises(UserError, match=r"^k must be "):
            check_value("k", value, hint)


def test_nested_parts_are_built_from_the_inside(monkeypatch):
    monkeypatch.setattr("mbrl_flat.errors.method", method, raising=False)
    monkeypatch.setattr("mbrl_flat.errors.Inner", Inner, raising=False)
    node = {
        "_target_": f"{HERE}.method", "_partial_": True,
        "rho": {"_target_": f"{HERE}.method", "_partial_": True}, "every": 2,
    }  # fmt: skip
    found = build(node, "o")
    assert isinstance(found, partial)
    assert found.func is method
    assert found.keywords["every"] == 2
    assert found.keywords["rho"].func is method
    assert build({"a": [{"_target_": f"{HERE}.Inner", "size": 3}]})["a"][0] == Inner(size=3)
    with pytest.raises(UserError) as caught:
        build({"_target_": f"{HERE}.Inner", "size": 0}, "agent.config")
    assert str(caught.value) == "size must be at least 1, got 0. (at agent.config)"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no_such_module.make", "no function or class no_such_module.make"),
        ("mbrl_flat.errors.Nothing", "no function or class mbrl_flat.errors.Nothing"),
        ("mbrl_flat.errors", "no function or class mbrl_flat.errors"),
        ("", "no function or class"),
        (3, "no function or class 3"),
        ("....", "no function or class"),
    ],
)
def test_what_cannot_be_imported_is_named(path, said):
    with pytest.raises(UserError, match=r"^env\._target_") as caught:
        build({"_target_": path}, "env")
    assert said in str(caught.value)


def test_a_configuration_is_checked_where_it_is_built():
    found = build_config(Settings, {"rate": 2, "inner": {"size": 4}, "parts": {"a": {"b": 1}}})
    assert found == Settings(rate=2.0, inner=Inner(size=4), parts={"a": {"b": 1}})
    assert type(found.rate) is float
    for settings, message in {
        "name": ({"namee": "x"}, "Unknown key 'namee'; did you mean 'name'?"),
        "inner": ({"inner": {"sizee": 1}}, "Unknown key 'inner.sizee'; did you mean 'inner.size'?"),
        "type": ({"inner": {"size": "big"}}, "inner.size must be a whole number, got 'big'."),
        "null": ({"rate": None}, "rate must be a number, got null."),
        "list": ({"tags": "a"}, "tags must be a list, such as [a,b], got 'a'."),
        "part": ({"inner": 3}, "inner must be a part with a _target_, got 3."),
    }.values():
        with pytest.raises(UserError) as caught:
            build_config(Settings, settings)
        assert str(caught.value) == message
    with pytest.raises(UnknownNameError):
        build_config(Settings, {"x": 1})


def unbounded(rate: float = 1.0, clip: float = 1.0, rates: Sequence[float] = ()) -> None:
    """Settings that are numbers."""


@pytest.mark.parametrize(
    "given",
    [
        {"rate": math.nan}, {"rate": math.inf}, {"rate": -math.inf}, {"clip": math.nan},
        {"clip": -math.inf}, {"rates": [1.0, math.nan]},
    ],
)  # fmt: skip
def test_numbers_that_are_not_finite_are_refused_but_for_bounds(given):
    check_arguments(unbounded, {"rate": 1.0, "clip": math.inf, "rates": [0.0]}, "part")
    with pytest.raises(UserError, match=rf"part\.{next(iter(given))} must be finite, got"):
        check_arguments(unbounded, given, "part")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("updates_per_step", 1e9, r"updates_per_step must be at most 1,000, got 1,000,000,000.0"),
        ("updates_per_step", 1000, None),
        ("num_envs", 10**9, "num_envs must be at most 4,096, got 1,000,000,000;"),
        ("agent.config.horizon", 10**6, r"agent\.config\.horizon must be at most 10,000"),
        ("agent.planner.num_samples", 10**9, "must be at most 10,000,000"),
        ("eval_episodes", 10**6, "must be at most 100,000"),
        ("steps", 10**15, None),
        ("seed", 2**61, None),
        ("replay_capacity", 10**12, None),
        ("checkpoint_every", 10**12, None),
    ],
)
def test_a_count_that_never_ends_or_fits_nowhere_is_refused(key, value, said):
    refused = nullcontext() if said is None else pytest.raises(UserError, match=said)
    with refused:
        check_value(key, value, float)
