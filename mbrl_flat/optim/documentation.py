"""Pages about the optimizers, written from the registry and the docstrings of the methods.

``python -m mbrl_flat.optim.documentation docs/optimizers`` writes them again.
"""

import inspect
import re
import sys
from pathlib import Path
from textwrap import dedent

from mbrl_flat import optim
from mbrl_flat.optim import OPTIMIZERS, Entry
from mbrl_flat.optim.step_options import StepOptions

_HEAD = """\
# Optimizers

Written by `python -m mbrl_flat.optim.documentation docs/optimizers`; do not edit by hand.

`optimizer=NAME` on the command line, `make_optimizer("NAME", model, ...)` in a notebook.
Gradient evaluations of one step, with default settings, stand for its cost. Memory is the most
that a step holds besides weights, gradients and the state of its base (Adam's two moments for
methods without a base), in copies of the parameters; `tests/mbrl_flat/optim/test_memory.py` counts.
"First at the weights" says whether the first evaluation of a step is at the weights before it; if
not, the loss that is reported is that of perturbed weights.

`optimizer.last` reports every step: evaluations, gradient norm, length of the perturbation, loss
gap between perturbed and clean weights (0 for methods that evaluate at one of them only), cosine
between this perturbation and the one before (over at most 4096 entries of each tensor, in runs at a
prime distance; exact for smaller tensors), and the number of steps that were skipped.

Every method that has a radius takes a number or a schedule (`mbrl_flat.optim.schedules`); with
`only` it perturbs some parameters alone (modules, kinds of layers, patterns: `groups.py`),
with `every=k` in every k-th step alone. LPF-SGD and VGD call their radius sigma. Every method takes
several closures a step, loss scaling for float16 and averaging over processes; see
`FlatOptimizer.step` and `StepOptions`.

Keep the weights in float32 and compute in bfloat16 by autocast. Where the weights themselves are
bfloat16, a change of less than about a 256th part of an entry is rounded away: perturbations of
usual radii then move few entries or none (while `perturbation_norm` reports the length that was
meant), and an average of the weights stands still once its steps are that small.

| name | paper | gradient evaluations | memory | first at the weights | base | needs |
|---|---|---|---|---|---|---|
"""

_OPTIONS = """\
## Options of a step

Every method takes them: as arguments of `make_optimizer`, or on the command line as
`++optimizer.KEY=VALUE`.

| option | meaning |
|---|---|
"""

_STUDIES = {
    "study_dmc_cpu": ("control", "adam sam msam vasso sam_on ivon random_direction"),
    "central_claim": ("when a flat world model helps", "adam sam random_direction"),
    "world_model_offline": ("world models offline", "adam sam msam vasso sam_on random_direction"),
    "label_noise": ("label noise", "sgd sam asam sam_on msam vasso friendly_sam random_direction"),
    "momentum_sam": ("Momentum-SAM", "sgd adamw sam msam random_direction"),
    "vasso": ("VaSSO", "sgd adamw sam vasso friendly_sam random_direction"),
    "sam_on": ("SAM-ON", "sgd adamw sam sam_on random_direction"),
    "variational_eos": ("edge of stability", "sgd adam vgd ivon"),
}
"""Studies with a page, what they are called and which methods they measured."""

_NOTES = {
    ("study_dmc_cpu", "ivon"): ": hardly learned (returns 100 and 217 of 1000, one seed)",
    **{("study_dmc_cpu", name): ": rho 0.01" for name in ("sam", "msam", "random_direction")},
    ("study_dmc_cpu", "vasso"): ": rho 0.01, theta 0.2",
    ("study_dmc_cpu", "sam_on"): ": rho 0.1",
    ("momentum_sam", "msam"): ": rho 1 to 4, a step took 1.2 to 1.7 times SGD's time",
}
"""What a study says of a method in a few words."""

_RHO = {"sam": 0.01, "msam": 0.01, "random_direction": 0.01, "vasso": 0.01, "sam_on": 0.1}
"""Radii of the control study (TD-MPC2); elsewhere SAM's there is a fifth of its default."""

_ATTRIBUTES = re.compile(r"^Attributes:\n((?:[ ]{4}.*\n|\n(?=[ ]{4}))+)", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^(\w+): (.*(?:\n[ ]{4,}.*)*)", re.MULTILINE)

_SECTIONS = (r"How to choose [a-z ]+", "References", "Deviations from the paper")


def pages() -> dict[str, str]:
    """Text of every page by file name: a table, and one page for each optimizer."""
    rows = "".join(_row(OPTIMIZERS[name]) for name in sorted(OPTIMIZERS))
    texts = {f"{name}.md": _page(OPTIMIZERS[name]) for name in sorted(OPTIMIZERS)}
    options = "".join(f"| `{key}` | {text} |\n" for key, text in meanings(StepOptions).items())
    return {"README.md": f"{_HEAD}{rows}\n{_OPTIONS}{options}", **texts}


def meanings(kind: type) -> dict[str, str]:
    """What is said first of each setting in the docstrings of a class and of its bases."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        text = inspect.cleandoc(each.__dict__.get("__doc__") or "") + "\n"
        for attributes in _ATTRIBUTES.findall(text):
            pairs = _ATTRIBUTE.findall(inspect.cleandoc(attributes))
            found |= {name: _first_sentence(words) for name, words in pairs}
    return found


def _first_sentence(words: str) -> str:
    return re.split(r"\.(?: |$)", " ".join(words.split()), maxsplit=1)[0].replace("``", "`")


def _row(entry: Entry) -> str:
    cells = [
        f"[{entry.name}]({entry.name}.md)",
        _paper(entry),
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
    module = sys.modules[entry.build.__module__]
    text = markdown(inspect.cleandoc(module.__doc__ or ""))
    known = meanings(entry.kind)
    settings = "".join(
        f"| `{name}` | {'required' if value is inspect.Parameter.empty else f'`{value}`'} "
        f"| {known.get(name, '')} |\n"
        for name, value in entry.settings.items()
    )
    return (
        f"# {entry.name}\n\n{text}\n\n{_cost(entry)}{_example(entry)}{_measured(entry)}"
        f"## Settings\n\n| setting | default | meaning |\n|---|---|---|\n{settings}\n"
        "Every method also takes the [options of a step](README.md#options-of-a-step), such as "
        f"`max_grad_norm`.\nClass: `{_class_name(entry.kind)}`. {_command(entry)}\n"
    )


def _class_name(kind: type) -> str:
    """Where it is imported from; LaProp's wrapper has no name in the package."""
    short = hasattr(optim, kind.__name__)
    return f"{'mbrl_flat.optim' if short else kind.__module__}.{kind.__name__}"


def _command(entry: Entry) -> str:
    command = f"mbrl-flat-train optimizer={entry.name}"
    if not entry.has_base or "rho" not in entry.settings:
        return f"Command: `{command}`."
    rho = _RHO.get(entry.name, round(entry.settings["rho"] / 5.0, 6))
    source = (
        "the radius used for TD-MPC2 here"
        if entry.name in _RHO
        else "not measured on TD-MPC2: a fifth of the default, as SAM's is there"
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
    required = (k for k, v in entry.settings.items() if v is inspect.Parameter.empty)
    given = {"base": '"adam"', "lr": "1e-3"} if entry.has_base else {}
    given |= {name: "1000" for name in required if name not in given}
    words = "".join(f", {name}={value}" for name, value in given.items())
    return (
        "## Example\n\nModel and closure are those of [Plain PyTorch](../guides/pytorch.md).\n"
        "```python\nfrom mbrl_flat.optim import make_optimizer\n\n"
        f'optimizer = make_optimizer("{entry.name}", model{words})\n'
        "loss = optimizer.step(closure)\n```\n\n"
    )


def _measured(entry: Entry) -> str:
    found = [
        f"- [{title}](../studies/{study}/README.md){_NOTES.get((study, entry.name), '')}\n"
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
