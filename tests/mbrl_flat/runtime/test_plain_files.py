"""Files that someone else may have written: refused at once, or plain data."""

import os
import time

import pytest

from mbrl_flat.errors import UserError
from mbrl_flat.runtime.plain_files import read_json, read_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "alias"),
        ("a: " + "[" * 3000 + "]" * 3000, "deep"),
        ("a: " + "{b: " * 100 + "1" + "}" * 100, "deep"),
        ("a: " + "9" * 400, r"a must be within \+-2\*\*63 \(19 digits\), got 9{24}\.\.\."),
        ("a: " + "9" * 5000, "integer string conversion"),
        ("a: {b: [1, " + "9" * 30 + "]}", r"a\.b\[1\] must be within"),
        ("a: !!pairs [b: {_target_: os.system}]", r"a\[0\] is a tuple"),
        ("a: !!omap [b: {_target_: os.system}]", r"a\[0\] is a tuple"),
        ("a: !!set {b, c}", "a is a set"),
        ("a: {b: !!binary aGk=}", r"a\.b is a bytes"),
        ("a: 1\nb: 2\na: 1", "the key 'a' is given twice"),
        ("c: {a: {b: 1, b: 2}}", "the key 'b' is given twice"),
        ("1: a", "the key 1 below the top is not text"),
        ("- a", "holds no settings"),
        ("", "holds no settings"),
        ("a: [unclosed", "did not find"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: \0", "control characters"),
        ("a: " + "x" * 5_000_000, "larger than"),
        ("a: [" + "1," * 1_900_000 + "1]", "more than 20,000 keys and values"),
        ("".join(f"k{n}: &a{n} 1\n" for n in range(100_000)), "more than 20,000"),
        ('a: !!int ""', "index out of range"),
        ('a: !!float "_"', "index out of range"),
        ("a: !!bool x", "'x'"),
        ("a: !!set [x]", "cannot unpack"),
    ],
)
def test_a_yaml_file_that_is_no_plain_configuration_is_refused_at_once(tmp_path, text, reason):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    start = time.perf_counter()
    with pytest.raises(UserError, match=reason) as caught:
        read_yaml(file)
    assert time.perf_counter() - start < 2.0
    assert str(caught.value).startswith(f"{file} is damaged (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": ' * 100_000,
        '{"a": ' + "[" * 60 + "]" * 60 + "}",
        '{"a": ' + "9" * 400 + "}",
        '{"a": {"b": 1, "b": 1}}',
        "[]",
        "",
    ],
)
def test_a_json_file_that_is_no_plain_mapping_is_refused(tmp_path, text):
    file = tmp_path / "study.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"study\.json is damaged \("):
        read_json(file)


def test_bytes_that_are_no_text_and_files_that_are_absent_are_named(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UserError, match="not UTF-8 text"):
        read_yaml(tmp_path / "config.yaml")
    with pytest.raises(UserError, match=r"Cannot read .*: No such file"):
        read_yaml(tmp_path / "none.yaml")


def test_a_pipe_a_device_and_a_file_that_is_too_large_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(2**40)

    for name in ("pipe", "device"):
        with pytest.raises(UserError, match=rf"{name}\.yaml is a pipe or a device, not a file"):
            read_yaml(tmp_path / f"{name}.yaml")
    with pytest.raises(UserError, match="larger than 4,194,304 bytes"):
        read_yaml(tmp_path / "large.yaml")


def test_values_are_read_as_the_command_line_reads_them(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("a: 1e-3\nb: 2026-01-01\nc: 1_000\nd: .inf\ne: -2.5E+4\nf: 'text'\ng: null\n")
    assert read_yaml(file) == {
        "a": 1e-3, "b": "2026-01-01", "c": 1000, "d": float("inf"), "e": -2.5e4, "f": "text",
        "g": None,
    }  # fmt: skip


@pytest.mark.parametrize("text", [":".join("1" * 50_000), ":".join("1" * 300) + ".5", "1:30"])
def test_numbers_to_base_sixty_are_text(tmp_path, text):
    """A long one takes minutes to compute, and one with a fraction overflows."""
    file = tmp_path / "config.yaml"
    file.write_text(f"a: {text}\n")
    start = time.perf_counter()
    assert read_yaml(file) == {"a": text}
    assert time.perf_counter() - start < 2.0
