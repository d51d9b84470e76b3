"""Text where there is a number, and the like."""

import pytest

from mbrl_flat.cli.override_checks import check_types
from mbrl_flat.errors import UserError

DEFAULTS = {
    "optimizer": {"rho": 0.05, "every": 1, "only": None, "adaptive": False, "restore": "exact"},
    "seed": 0,
}


def check(override, value):
    path, settings = override.partition("=")[0].split("."), {}
    inner = settings
    for word in path[:-1]:
        inner = inner.setdefault(word, {})
    inner[path[-1]] = value
    check_types([override], settings, groups=("agent", "env"), without=lambda kept: DEFAULTS)


@pytest.mark.parametrize(
    ("override", "value", "message"),
    [
        ("optimizer.rho=abc", "abc", "optimizer.rho must be a number, such as 0.05, got 'abc'."),
        ("optimizer.rho=true", True, "optimizer.rho must be a number, such as 0.05, got True."),
        ("optimizer.rho=[1]", [1], "optimizer.rho must be a number, such as 0.05, got [1]."),
        ("optimizer.every=1.5", 1.5, "optimizer.every must be a whole number, such as 1, got 1.5."),
        ("optimizer.every=", "", "optimizer.every must be a whole number, such as 1, got ''."),
        (
            "optimizer.adaptive=yess",
            "yess",
            "optimizer.adaptive must be true or false, got 'yess'.",
        ),
    ],
)
def test_another_kind_is_refused_by_name(override, value, message):
    with pytest.raises(UserError) as caught:
        check(override, value)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.rho=1", 1),
        ("optimizer.rho=null", None),
        ("optimizer.rho=0.1", 0.1),
        ("+optimizer.rho.value=0.1", 0.1),
        ("optimizer.only=encoder", "encoder"),
        ("optimizer.adaptive=true", True),
        ("optimizer.restore=never", "never"),
        ("optimizer.new=text", "text"),
        ("agent=tdmpc2", "tdmpc2"),
    ],
)
def test_what_may_stand_there_passes(override, value):
    check(override, value)


def test_settings_without_doubt_cost_no_second_look():
    check_types(["seed=3"], {"seed": 3}, groups=(), without=lambda kept: pytest.fail("looked"))
