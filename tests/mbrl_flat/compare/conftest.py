import json

import pytest
import yaml

from mbrl_flat.compare.main import main


def write_run(folder, rows, config, **environment):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if rows is not None:
        lines = [json.dumps({"step": s, "frame": 2 * s, "time": float(s), **r}) for s, r in rows]
        (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    if environment:
        (folder / "environment.json").write_text(json.dumps(environment))
    return folder


@pytest.fixture
def make_run(tmp_path):
    """Write a run; ``returns`` are evaluations at 0, 100, 200, ..."""

    def make(
        optimizer="adam",
        *,
        seed=0,
        task="walker-walk",
        returns=(0.0, 10.0),
        metrics=None,
        settings=None,
        rows=(),
        **config,
    ):
        evaluations = [
            (100 * i, {"eval/return_mean": value, **(metrics or {})})
            for i, value in enumerate(returns)
        ]
        number = len(list(tmp_path.glob("runs/*")))
        return write_run(
            tmp_path / "runs" / f"{number:02d}_{task}_{optimizer}_s{seed}",
            [*evaluations, *rows],
            {
                "names": {"agent": "tdmpc2", "env": "dmc", "task": task, "optimizer": optimizer},
                "seed": seed,
                "steps": 100 * (len(returns) - 1),
                "optimizer": {"lr": 3e-4, **(settings or {})},
                "agent": {"latent_dim": 512},
                **config,
            },
        )

    return make


@pytest.fixture
def out(tmp_path):
    return tmp_path / "report"


@pytest.fixture
def compare(tmp_path, out):
    def run(*arguments):
        return main([str(tmp_path / "runs" / "*"), "--out", str(out), *arguments])

    return run
