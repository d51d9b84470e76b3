"""The compiled reader of logs gives what Python reads, bit for bit, or leaves it to Python."""

import json
import struct

import numpy as np
import pytest

from mbrl_flat.compare.main import main
from mbrl_flat.errors import UserError
from mbrl_flat.logging import metric_columns

KEEP = ("eval/", "probe/", "optim/evaluations")
ROW = '{"step": 1, "frame": 2, "time": 3.5, '


def read(path, *, compiled, monkeypatch):
    """Columns as names and bytes, or the error's message."""
    with monkeypatch.context() as patch:
        if not compiled:
            patch.setattr(metric_columns, "_library", lambda: None)
        try:
            columns = metric_columns.read_columns(path, KEEP)
        except UserError as error:
            return str(error)
    return [(name, c.rows.tolist(), c.values.tobytes()) for name, c in columns.items()]


def test_numbers_of_all_sizes_are_read_to_the_last_bit(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    bits = [struct.unpack("d", rng.bytes(8))[0] for _ in range(3000)]
    numbers = [*bits, *(rng.random(3000) * 10.0 ** rng.integers(-30, 30, 3000)).tolist()]
    texts = [repr(number) for number in numbers if np.isfinite(number)]
    # Halves of the last place, which must be rounded to even, and digits beyond them.
    texts += [f"{2**53 + odd}{rest}" for odd in range(9) for rest in ("", ".0", ".5", ".5000001")]
    texts += [f"{rng.integers(10**18)}e{power}" for power in range(-320, 310)]
    texts += ["0", "-0", "-0.0", "0e0", "1E+5", "-1e-05", "null", "123456789012345678", "1e400"]
    texts += ["0.1234567890123456789012345678901234567890", "9007199254740993.00000000000000001"]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{ROW}"eval/x": {text}}}\n' for text in texts))

    found = read(path, compiled=True, monkeypatch=monkeypatch)

    assert found == read(path, compiled=False, monkeypatch=monkeypatch)
    assert metric_columns._scanned(path.read_bytes(), KEEP) is not None
    known = np.frombuffer(found[-1][2])
    assert known[: len(numbers) // 2].tolist() == [
        float(text) for text in texts[: len(numbers) // 2]
    ]


def test_rows_of_several_layouts_are_told_apart(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    names = [
        "eval/a",
        "eval/b",
        "train/c",
        "probe/d",
        "optim/evaluations_total",
        "optim/e",
        "evalx",
    ]
    lines = []
    for step in range(300):
        row = {name: float(rng.normal()) for name in rng.permutation(names)[: rng.integers(7)]}
        place = {"time": 0.5 * step, "frame": 2 * step, "step": step}
        lines.append(json.dumps(row | place if step % 3 else place | row))
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines) + '\n{"step": 1, "half": ')

    assert read(path, compiled=True, monkeypatch=monkeypatch) == read(
        path, compiled=False, monkeypatch=monkeypatch
    )


@pytest.mark.parametrize(
    "line",
    [
        ROW + '"eval/x": true}', ROW + '"eval/x": "1"}', ROW + '"eval/x": [1]}', ROW + "}", "",
        ROW + '"eval/x": 01}', ROW + '"eval/x": 1.}', ROW + '"eval/x": .5}', ROW + '"eval/x": +1}',
        ROW + '"eval/x": -}', ROW + '"eval/x": 1e}', ROW + '"eval/x": NaN}', ROW + '"eval/x": nul}',
        ROW + '"eval/x": Infinity}', ROW + '"eval/x": 1} ', ROW + '"eval/x": 1}\r', "{}", "[1]",
        ROW + '"eval/x": 1, "eval/x": 2}', ROW + '"eval/\\u0041": 1}', ROW + '"eval/\\"": 1}',
        ROW + '"eval/x": 12345678901234567890123}', ROW + f'"eval/x": {"9" * 400}}}',
        ROW + '"probe/sharpness/adaptive_gap": 1}', '{"step": 1, "frame": 2, "eval/x": 1}',
        '{"step": 1, "frame": 2, "time": null, "eval/x": 1}', ROW + '"eval/\u00e9": 1}',
        ROW + '"eval/x" : 1 ,\t"eval/y":2 }', ' {"step":1,"frame":2,"time":3}', ROW + '"": 1}',
        ROW + '"train/x": 1.5.5}', ROW + '"eval/x": 1}{', ROW + '"eval/x": 1 2}',
        ROW + '"eval/x" 1}',
        ROW + '"eval/\x01": 1}', ROW + '"eval/x": 1},', "\ufeff" + ROW + '"eval/x": 1}', '{"step',
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [0, 2])
def test_what_is_unusual_or_wrong_is_read_as_python_reads_it(tmp_path, monkeypatch, line, before):
    path = tmp_path / "metrics.jsonl"
    plain = ROW + '"eval/x": 0.25}\n'
    path.write_bytes((plain * before + line + "\n" + plain).encode())

    found = read(path, compiled=True, monkeypatch=monkeypatch)

    assert found == read(path, compiled=False, monkeypatch=monkeypatch)


def test_bytes_that_are_no_text_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(ROW.encode() + b'"eval/\xff": 1}\n')

    found = read(path, compiled=True, monkeypatch=monkeypatch)

    assert found == read(path, compiled=False, monkeypatch=monkeypatch)
    assert "Line 1 of" in found


def test_a_file_of_a_thousand_names_is_read_without_python():
    row = {"step": 1, "frame": 1, "time": 1.0, **{f"eval/{n}": n for n in range(1000)}}

    columns = metric_columns._scanned(json.dumps(row).encode() + b"\n", KEEP)

    assert columns is not None
    assert [c.values.tolist() for c in columns.values()] == [[float(v)] for v in row.values()]


def test_the_report_does_not_depend_on_who_read_the_logs(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(2)
    for number in range(12):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        names = {"agent": "tdmpc2", "env": "dmc", "task": "walker-walk"}
        names["optimizer"] = ("adam", "sam")[number % 2]
        (folder / "config.yaml").write_text(json.dumps({"names": names, "seed": number // 2}))
        place = ({"step": s, "frame": 2 * s, "time": 1e9 + s} for s in range(0, 5000, 100))
        rows = [p | {"eval/return_mean": rng.normal(), "time/env": rng.random()} for p in place]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    for name in ("compiled", "python"):
        arguments = [str(tmp_path / "runs"), "--out", str(tmp_path / name), "--title", "same"]
        assert main(arguments) == 0
        monkeypatch.setattr(metric_columns, "_library", lambda: None)

    for file in ("index.html", "table.csv", "seeds.csv", "return.svg"):
        assert (tmp_path / "compiled" / file).read_bytes() == (
            tmp_path / "python" / file
        ).read_bytes()
