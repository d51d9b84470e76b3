"""Pages about the optimizers, written from the registry and the docstrings of the methods.

``python scripts/site/optimizers.py docs/optimizers`` writes them again.
"""

import inspect
import re
import sys
from pathlib import Path
from textwrap import dedent

from mbrl_flat.analysis.plot_style import method_style
from mbrl_flat.optim import OPTIMIZERS, Entry
from mbrl_flat.optim.signature import example_arguments, meanings
from mbrl_flat.optim.step_options import StepOptions

_HEAD = """\
# Optimizers

The SAM family, its relatives, plain optimizers and controls: {number} methods. Each page has the
equation, how to choose rho, the cost, an example and what was measured here.
[Choose an optimizer and rho](../guides/choose_optimizer.md) is the short answer.

Use `optimizer=NAME` on the command line and `make_optimizer("NAME", model, ...)` in Python
([plain PyTorch](../guides/pytorch.md)).

"""

_TABLE = """
## Cost and requirements

| name | gradient evaluations | memory | first at the weights | base | needs |
|---|---|---|---|---|---|
"""

_NOTES_ON_ALL = """
- *Gradient evaluations*: forward and backward passes of one step, with default settings.
- *Memory*: the most that a step holds besides weights, gradients and the state of its base (Adam's
  two moments for methods without a base), in copies of the parameters.
- *First at the weights*: whether the first evaluation of a step is at the weights before it. If
  not, the loss that is reported is that of perturbed weights.
- *Base*: `any` takes another optimizer (`base="sgd"`); `its own` is a complete optimizer.

## What every method does

- `optimizer.last` reports every step: evaluations, gradient norm, length of the perturbation, loss
  gap between perturbed and clean weights (0 for methods that evaluate at one of them only), cosine
  between this perturbation and the one before (of at most 4096 entries of each tensor), and whether
  the step was skipped because it was not finite.
- `rho` is a number or a schedule (`mbrl_flat.optim.schedules`). LPF-SGD and VGD call it `sigma`.
- `only` perturbs some parameters only: modules, kinds of layers or patterns (`groups.py`).
  `every=k` perturbs in every k-th step only.
- A step takes one closure or several, scales losses for float16 and averages over processes; see
  `FlatOptimizer.step` and `StepOptions`.
- Keep the weights in float32 and compute in bfloat16 by autocast. A bfloat16 weight does not change
  if the change is less than about 1/256 of it, so perturbations of usual radii would move few
  entries or none, and `perturbation_norm` would still report the intended length. An average of
  bfloat16 weights stops moving for the same reason.

"""

_NOTATION = """
`w` are the weights, `L` is the loss of the batch, `g` its gradient at `w`, `epsilon` the
perturbation. `d` is the gradient that the base optimizer takes for its step.
"""

_GENERATED = "\n*Written by `python scripts/site/optimizers.py docs/optimizers`.*\n"

_OPTIONS = """\
## Options of a step

Every method takes them: as arguments of `make_optimizer`, or on the command line as
`++optimizer.KEY=VALUE`.

| option | meaning |
|---|---|
"""

_CODE = """\
import torch

from mbrl_flat.optim import make_optimizer

model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 1))
x, y = torch.randn(64, 8), torch.randn(64, 1)
optimizer = make_optimizer("{name}", model{words})


def closure():
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()
    return loss


loss = optimizer.step(closure)
"""

_STUDIES = {
    "study_dmc_cpu": (
        "TD-MPC2 on three control tasks",
        "adam sam msam vasso sam_on ivon random_direction",
    ),
    "published_recipe": ("how much of the published gain is SAM's", "adam sam sam_as_published"),
    "central_claim": ("when a flat world model helps", "adam sam msam random_direction"),
    "central_claim_replication": ("the same on a second task", "adam sam msam"),
    "world_model_offline": ("world models offline", "adam sam msam vasso sam_on random_direction"),
    "label_noise": ("label noise", "sgd sam asam sam_on msam vasso friendly_sam random_direction"),
    "momentum_sam": ("Momentum-SAM", "sgd adamw sam msam random_direction"),
    "vasso": ("VaSSO", "sgd adamw sam vasso friendly_sam random_direction"),
    "sam_on": ("SAM-ON", "sgd adamw sam sam_on random_direction"),
    "variational_eos": ("edge of stability", "sgd adam vgd ivon"),
}
"""Studies with a page, what they are called and which methods they measured."""

_RETURNS = "; return minus Adam's: cartpole-swingup {}, walker-walk {}, five seeds"
_POINTS = ": {} points of test accuracy over SGD (perceptron, five seeds)"
_OFFLINE = (
    ": TD-MPC2 against Adam at equal evaluations: eigenvalue {}, rollout error {}, five seeds"
)

_NOTES = {
    ("study_dmc_cpu", "ivon"): ": hardly learned (returns 217 and 100 of 1000, one seed)",
    ("study_dmc_cpu", "sam"): ": rho 0.01" + _RETURNS.format("-90 [-290, 110]", "-26 [-127, 76]"),
    ("study_dmc_cpu", "msam"): ": rho 0.01" + _RETURNS.format("-67 [-261, 128]", "-13 [-73, 47]"),
    ("study_dmc_cpu", "vasso"): ": rho 0.01, theta 0.2"
    + _RETURNS.format("-169 [-425, 86]", "-80 [-188, 28]"),
    ("study_dmc_cpu", "sam_on"): ": rho 0.1" + _RETURNS.format("-13 [-155, 129]", "-16 [-132, 99]"),
    ("study_dmc_cpu", "random_direction"): ": rho 0.01"
    + _RETURNS.format("38 [-221, 297]", "-10 [-92, 71]"),
    ("published_recipe", "sam"): ": rho 0.01, return minus Adam's: cartpole-swingup "
    "-169 [-231, -106], walker-walk 11 [-46, 68], ten seeds",
    ("published_recipe", "sam_as_published"): ": rho 0.01, two tasks, with the other "
    "changes of the public code and without SAM (rho 1e-8)",
    ("central_claim", "sam"): ": rho 0.02, against Adam at equal evaluations: eigenvalue "
    "-89 % [-90, -87], value error 33 % [25, 42], ten seeds",
    ("central_claim", "msam"): ": rho 0.1, change against Adam: ten-step error -30 % [-37, -21], "
    "eigenvalue -97 % [-98, -97], value error 42 % [36, 49]",
    ("central_claim_replication", "sam"): ": rho 0.02, against Adam: held-out loss "
    "-5.9 % [-7.7, -4.2], eigenvalue -88 % [-91, -84], value error 33 % [19, 49]",
    ("central_claim_replication", "msam"): ": rho 0.1, against Adam: ten-step error "
    "-21 % [-34, -5], eigenvalue -95 % [-96, -93], value error 10 % [2, 17]",
    ("world_model_offline", "sam"): _OFFLINE.format("-29 % [-36, -23]", "1.4 % [0.7, 2.1]"),
    ("world_model_offline", "msam"): _OFFLINE.format("-22 % [-32, -11]", "-0.7 % [-1.1, -0.2]"),
    ("world_model_offline", "vasso"): _OFFLINE.format("-41 % [-45, -36]", "3.3 % [2.3, 4.2]"),
    ("world_model_offline", "sam_on"): _OFFLINE.format("-4 % [-14, 6]", "1.3 % [0.6, 2.0]"),
    ("label_noise", "sam"): _POINTS.format("26.3 [25.7, 27.0]"),
    ("label_noise", "asam"): _POINTS.format("23.0 [21.2, 24.7]"),
    ("label_noise", "sam_on"): _POINTS.format("23.7 [23.2, 24.2]"),
    ("label_noise", "msam"): _POINTS.format("23.8 [22.9, 24.7]"),
    ("label_noise", "vasso"): _POINTS.format("25.6 [24.8, 26.5]") + ", theta 0.2",
    ("label_noise", "friendly_sam"): _POINTS.format("26.3 [25.7, 26.8]"),
    ("label_noise", "random_direction"): _POINTS.format("0.4 [-1.2, 2.1]"),
    ("momentum_sam", "msam"): ": rho 1 to 4, a step took 1.2 to 1.7 times SGD's time",
    ("sam_on", "sam_on"): ": points over SGD: CNN 3.7 [2.8, 4.6], ViT 24.1 [20.4, 27.7]",
}
"""What a study says of a method in a few words."""

_RHO = {
    "sam": 0.01, "msam": 0.01, "random_direction": 0.01, "vasso": 0.01, "sam_on": 0.1,
    "sam_as_published": 0.01,
}  # fmt: skip
"""Radii of the studies online (TD-MPC2); elsewhere SAM's there is a fifth of its default."""

_SECTIONS = (r"How to choose [a-z ]+", "References", "Deviations from the paper")


def pages() -> dict[str, str]:
    """Text of every page by file name: a table, and one page for each optimizer."""
    entries = [OPTIMIZERS[name] for name in sorted(OPTIMIZERS)]
    listed = "| name | what it is | paper |\n|---|---|---|\n" + "".join(map(_summary, entries))
    rows = "".join(map(_row, entries))
    options = "".join(f"| `{key}` | {text} |\n" for key, text in _briefly(StepOptions).items())
    head = f"{_HEAD.format(number=len(entries))}{listed}"
    index = f"{head}{_TABLE}{rows}{_NOTES_ON_ALL}{_OPTIONS}{options}{_GENERATED}"
    return {"README.md": index, **{f"{entry.name}.md": _page(entry) for entry in entries}}


def _briefly(kind: type) -> dict[str, str]:
    """What is said first of each setting."""
    first = re.compile(r"\.(?: |$)")
    return {k: first.split(v, 1)[0].replace("``", "`") for k, v in meanings(kind).items()}


def _summary(entry: Entry) -> str:
    paragraph = _text(entry).split("\n\n", 1)[0]
    words = " ".join(paragraph.split()).split(": ", 1)[-1].rstrip(".")
    return f"| [{entry.name}]({entry.name}.md) | {words} | {_paper(entry)} |\n"


def _text(entry: Entry) -> str:
    return markdown(inspect.cleandoc(sys.modules[entry.build.__module__].__doc__ or ""))


def _row(entry: Entry) -> str:
    cells = [
        f"[{entry.name}]({entry.name}.md)",
        f"{entry.evaluations:g}",
        f"{entry.memory:g}",
        "yes" if entry.clean_first else "no",
        "any" if entry.has_base else "its own",
        entry.needs,
    ]
    return f"| {' | '.join(cells)} |\n"


def _paper(entry: Entry) -> str:
    number = entry.paper.removeprefix("arXiv:")
    return f"[{number}](https://arxiv.org/abs/{number})" if number else ""


def _page(entry: Entry) -> str:
    text = _text(entry)
    if re.search(r"\bd =", text):  # what the base takes is written so
        text = text.replace("\n## ", f"{_NOTATION}\n## ", 1)
    known = _briefly(entry.kind)
    settings = "".join(
        f"| `{name}` | `{value}` | {known.get(name, '')} |\n"
        for name, value in entry.settings.items()
    )
    return (
        f"# {method_style(entry.name).name} (`{entry.name}`)\n\n{text}\n\n"
        f"{_cost(entry)}{_example(entry)}{_measured(entry)}"
        f"## Settings\n\n| setting | default | meaning |\n|---|---|---|\n{settings}\n"
        "Every method also takes the [options of a step](README.md#options-of-a-step), such as "
        f"`max_grad_norm`.\nClass: `mbrl_flat.optim.{entry.kind.__name__}`. {_command(entry)}\n"
    )


def _command(entry: Entry) -> str:
    command = f"mbrl-flat-train optimizer={entry.name}"
    if not entry.has_base or "rho" not in entry.settings:
        return f"Command: `{command}`."
    rho = _RHO.get(entry.name, round(entry.settings["rho"] / 5.0, 6))
    source = (
        "the radius used for TD-MPC2 here"
        if entry.name in _RHO
        else "not measured on TD-MPC2; SAM's rho there is a fifth of its default, too"
    )
    return f"Command:\n`{command} optimizer.rho={rho:g}`\n({source})."


def _cost(entry: Entry) -> str:
    plural = "evaluation" if entry.evaluations == 1.0 else "evaluations"
    copies = "copy" if entry.memory == 1.0 else "copies"
    return (
        f"## Cost\n\n{entry.evaluations:g} gradient {plural} a step and "
        f"{entry.memory:g} {copies} of the parameters, with default settings.\n"
        "[All methods](README.md), [times](../reference/speed.md).\n\n"
    )


def _example(entry: Entry) -> str:
    words = example_arguments(entry.kind)
    return (
        "## Example\n\n[Install](../start/install.md) the package, then:\n"
        f"```python\n{_CODE.format(name=entry.name, words=words)}```\n"
        "[Plain PyTorch](../guides/pytorch.md) has schedulers and checkpoints. For `base` and "
        "common settings see\n[Optimizers in Python](../start/python.md#common-settings).\n\n"
    )


def _measured(entry: Entry) -> str:
    found = [
        f"- [{title}](../studies/{study}/README.md)"
        f"{_NOTES.get((study, entry.name), '').replace(': ', f':{chr(10)}  ', 1)}\n"
        for study, (title, methods) in _STUDIES.items()
        if entry.name in methods.split()
    ]
    words = "".join(found) if found else "In no study yet.\n"
    return f"## Measured here\n\n{words}\n"


def markdown(docstring: str) -> str:
    """Turn the few marks that our docstrings use into GitHub's.

    Args:
        docstring: Text with ``.. math::`` blocks, ``:math:`` and double backticks.

    Returns:
        The same in Markdown, with sections as headings.
    """
    text = re.sub(r"\.\. math::\n((?:[ ]{4}.*\n|\n(?=[ ]{4}))+)", _math, docstring + "\n")
    text = re.sub(r":math:`([^`]+)`", lambda found: f"$`{' '.join(found[1].split())}`$", text)
    text = re.sub(r"(?<!`)``(?!`)", "`", text)
    for section in _SECTIONS:
        text = re.sub(
            rf"^({section}):\n((?:    .*\n|\n(?=    ))+)",
            lambda found: f"## {found[1]}\n\n{dedent(found[2])}",
            text,
            flags=re.MULTILINE,
        )
    return text.strip()


def _math(found: re.Match[str]) -> str:
    body = dedent(found[1]).strip()
    if "&" in body:
        body = f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
    return f"```math\n{body}\n```\n"


def write(folder: Path) -> None:
    """Write every page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
