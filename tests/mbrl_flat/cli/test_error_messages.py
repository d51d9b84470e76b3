"""What the errors of others say, in one line."""

from mbrl_flat.cli.error_messages import format_error, format_part_error, unknown_key


def test_a_value_of_another_type_is_named_with_its_key():
    error = ValueError("Error merging override steps=a b")
    error.__cause__ = ValueError(
        "Value 'a b' of type 'str' could not be converted to Integer\n    full_key: steps"
    )

    assert format_error(error) == "steps must be a whole number, got 'a b'."


def test_a_switch_is_on_or_off():
    error = ValueError("Value 'maybe' is not a valid bool (type str)\n    full_key: progress")

    assert format_error(error) == "progress must be true or false, got 'maybe'."


def test_letters_that_cannot_be_read_ask_for_quotes():
    error = ValueError("LexerNoViableAltException: run_dir=mein Läufer\n      ^\nSee https")

    assert format_error(error) == (
        "Cannot read run_dir=mein Läufer; quote the value and the whole: \"run_dir='mein Läufer'\"."
    )


def test_anything_else_becomes_one_line():
    assert format_error(ValueError("one\n\n  two ")) == "one two"


def test_a_file_is_named_with_the_reason():
    assert format_error(PermissionError(13, "Permission denied", "a/b")) == (
        "Permission denied: a/b; what was saved before is whole."
    )


def test_a_pipe_that_nobody_reads_is_not_taken_for_a_file():
    assert format_error(BrokenPipeError(32, "Broken pipe")).startswith("Nobody reads the output")


def test_a_part_is_named_with_what_is_wrong_in_it():
    error = RuntimeError("Error in call\nfull_key: agent.config")
    error.__cause__ = ValueError("size must be\nmore")

    assert format_part_error(error) == "size must be (at agent.config)"


def test_a_key_that_is_unknown_is_found_by_its_full_name():
    assert unknown_key(AttributeError("Key 'rh' is not in struct\n full_key: optimizer.rh")) == (
        "optimizer.rh"
    )
    assert unknown_key(ValueError("something else")) is None
