"""Make a pretrained agent of a run: configuration, weights in float16, and a card.

python scripts/make_pretrained.py runs/NAME walker-stand --command "mbrl-flat-train ..."
"""

import argparse
import json
from pathlib import Path

import torch
import yaml

from mbrl_flat.cli.commands import build_run, load_run
from mbrl_flat.runs.evaluate import evaluate_run
from mbrl_flat.training.checkpoint import load_safely

OPTIMIZER_STATE = ("optimizer", "policy_optimizer", "learners")


def weights_of(agent: dict) -> dict:
    """Weights alone, in float16; target networks begin again at the networks."""

    def halved(value):
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if not str(k).startswith("target_q.")}
            return {k: halved(v) for k, v in kept.items()}
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.half() if floating else value

    return halved({k: v for k, v in agent.items() if k not in OPTIMIZER_STATE})


def main() -> None:
    """Write ``pretrained/NAME`` and judge what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command", required=True)
    parser.add_argument("--checkpoint", default="best")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("pretrained"))
    args = parser.parse_args()
    saved = load_safely(args.run / "checkpoints" / f"{args.checkpoint}.pt")
    folder = args.out / args.name
    (folder / "checkpoints").mkdir(parents=True)
    settings = yaml.safe_load((args.run / "config.yaml").read_text())
    settings |= {"run_dir": f"runs/pretrained/{args.name}", "resume": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    slim = {k: saved[k] for k in ("format", "shapes", "step")}
    file = folder / "checkpoints" / "latest.pt"
    torch.save({**slim, "weights_only": True, "agent": weights_of(saved["agent"])}, file)

    how = {"episodes": args.episodes, "seed": 1000, "checkpoint": "latest", "video": False}
    config, parts = build_run(load_run(str(folder))[0])
    row = evaluate_run(config, parts, folder, out=args.run, **how)
    card = {
        "agent": settings["names"]["agent"],
        "task": settings["names"]["task"],
        "optimizer": settings["names"]["optimizer"],
        "seed": settings["seed"],
        "steps": row["step"],
        "frames": row["frame"],
        "episodes": args.episodes,
        "return_mean": round(row["eval/return_mean"], 1),
        "return_std": round(row["eval/return_std"], 1),
        "weights": "float16",
        "bytes": file.stat().st_size,
        "command": args.command,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
