"""The messages of errors that a user can correct."""

from mbrl_flat.errors import MissingExtraError, NonFiniteError, UnknownNameError, UserError


def test_a_near_miss_is_answered_with_the_nearest_names():
    error = UnknownNameError("task", "walker-wlak", ["walker-walk", "dog-run"], where="env=dmc")

    assert isinstance(error, UserError)
    assert str(error) == "Unknown task 'walker-wlak' for env=dmc; did you mean 'walker-walk'?"


def test_several_near_names_are_all_given():
    error = UnknownNameError("task", "walker-rum", ["walker-run", "walker-walk", "cheetah-run"])

    assert str(error).startswith("Unknown task 'walker-rum'; did you mean 'walker-run' or ")


def test_a_name_far_from_all_is_answered_with_the_list_in_order():
    error = UnknownNameError("optimizer", "zzz", ["sam", "adam"])

    assert str(error) == "Unknown optimizer 'zzz'; choose one of: adam, sam."


def test_an_empty_registry_is_said_to_be_empty():
    assert str(UnknownNameError("probe", "x", [])) == (
        "Unknown probe 'x'; choose one of: none is registered."
    )


def test_errors_can_be_caught_as_what_they_are_elsewhere():
    assert issubclass(UserError, ValueError)
    assert issubclass(MissingExtraError, ImportError)
    assert issubclass(MissingExtraError, UserError)
    assert not issubclass(NonFiniteError, UserError)
