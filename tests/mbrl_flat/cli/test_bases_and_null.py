"""Settings of a base out of range, and ``null`` for a group or a number: one line, status 2."""

import copy

import pytest

from mbrl_flat.cli.composition import build_run, composed, plain
from mbrl_flat.errors import UserError

TINY = [
    "env=dummy", "preset=debug", "progress=false", "threads=1", "device=cpu", "steps=18",
    "env.episode_length=8", "seed_steps=16", "eval_every=0", "probe_every=0",
    "agent.config.batch_size=4", "agent.config.horizon=2", "optimizer=sam",
]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "word", "said"),
    [
        ("adam", "lr=-1", "Invalid learning rate: -1"),
        ("adamw", "weight_decay=-1", "Invalid weight_decay value: -1"),
        ("adam", "eps=nan", "optimizer.base.eps must be finite, got nan."),
        ("adam", "betas=[1.5,0.9]", "Invalid beta parameter at index 0: 1.5"),
        ("adam", "betas=[0.9]", "optimizer.base.betas must be a list, such as [a,b], got [0.9]."),
        ("adamw", "betas=[]", "optimizer.base.betas must be a list, such as [a,b], got []."),
        ("adam", "betas=[0.9,0.9,0.9]", "optimizer.base.betas must be a list, such as [a,b], got"),
        ("muon", "betas=[0.9]", "optimizer.base.betas must be a list, such as [a,b], got [0.9]."),
        ("muon", "momentum=2", "momentum in [0, 1), got 0.0003, 0.0 and 2."),
        ("laprop", "clip=-1", "clip must be above 0, got -1."),
        ("sgd", "momentum=-1", "Invalid momentum value: -1"),
        ("sgd", "nesterov=true", "Nesterov momentum requires a momentum and zero dampening"),
        ("adam", "lr='0x10'", "optimizer.base.lr must be a number, got '0x10'."),
        ("adam", "lr=null", "optimizer.base.lr must be a number, got null."),
        ("sgd", "+foreach=true", "SGD refuses its settings: `fused` and `foreach` cannot be"),
        ("laprop", "lr=1e300", "A number is larger than 32 or 64 bits hold (value cannot be"),
        ("muon", "lr=1e300", "A number is larger than 32 or 64 bits hold (value cannot be"),
    ],
)
def test_a_setting_of_a_base_out_of_range_is_refused(fails, tmp_path, base, word, said):
    plus = "+" if word.startswith("+") else ""
    word = f"{plus}optimizer.base.{word.removeprefix('+')}"

    assert said in fails(*TINY, f"optimizer/base={base}", word, "run_dir=run")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("agent=null", "agent=null names none; choose one of: dreamerv3, random"),
        ("env=null", "env=null names none; choose one of: atari, dmc"),
        ("optimizer=null", "optimizer=null names none; choose one of: adam"),
        ("optimizer/base=null", "optimizer/base=null names none; choose one of: adam"),
        ("optimizer.base=null", "base=None is no base optimizer; give a name"),
        ("preset=null", "preset=null names none"),
        ("benchmark=null", "benchmark=null names none"),
        ("experiment=null", "experiment=null names none"),
        ("agent.config=null", "agent.config must be a part with a _target_, got null."),
        ("agent.config.planner=null", "agent.config.planner must be a part with a _target_, got"),
        ("probes=null", "probes must be a mapping, such as {a: 1}, got null."),
        ("probes.sharpness=null", "probes.sharpness has no _target_; ~probes.sharpness removes"),
        ("wandb=null", "wandb must be a part with a _target_, got null."),
        ("steps=null", "steps must be a whole number, got null."),
        ("env.episode_length=null", "env.episode_length must be a whole number, got null."),
    ],
)
def test_null_for_a_group_or_a_number_is_refused_by_the_command(fails, tmp_path, word, said):
    assert said in fails(*TINY, word, "run_dir=run")
    assert not (tmp_path / "run").exists()


NULLABLE = {
    ("seed_steps",): "so many episodes",
    ("optimizer", "base", "fused"): "torch chooses",
    ("optimizer", "base", "clip"): "no bound",
    ("agent", "config", "actor_unimix"): "as in the world model",
    ("agent", "config", "imagination", "max_grad_norm"): "no bound",
}
OTHERS = ("Relative positions need a left_context",)


def numbers(tree, above=()):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from numbers(value, (*above, key))
        elif isinstance(value, int | float):
            yield (*above, key)


@pytest.mark.parametrize(
    ("agent", "base"),
    [("tdmpc2", "adam"), ("dreamerv3", "laprop"), ("storm", "muon"), ("twister", "sgd")],
)
def test_null_for_any_number_is_refused_by_its_name(agent, base):
    words = [word for word in TINY if not word.startswith("agent.")]
    settings = plain(composed("train", [*words, f"agent={agent}", f"optimizer/base={base}"]))
    names = {"agent": agent, "env": "dummy", "task": "point", "optimizer": "sam"}
    settings |= {"names": names, "run_dir": "run"}
    build_run(settings)

    taken, refused = [], []
    for place in numbers(settings):
        changed = copy.deepcopy(settings)
        above = changed
        for key in place[:-1]:
            above = above[key]
        above[place[-1]] = None
        try:
            build_run(changed)
        except UserError as error:
            refused.append((".".join(place), str(error)))
        else:
            taken.append(place)
    assert [place for place in taken if place not in NULLABLE] == []
    others = [said for key, said in refused if not said.startswith(key)]
    assert [said for said in others if not said.startswith(OTHERS)] == []
    assert all("\n" not in said for _, said in refused)
