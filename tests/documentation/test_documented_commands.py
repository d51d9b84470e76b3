"""Every command that a page shows is one that works.

A shell runs each fenced block with stand-ins for all programs, which write down what they were
called with: so loops, quotes and variables mean what they mean to a reader. Each call is then held
against what it calls: configurations are composed, flags go through the program's own parser. The
slow test executes the calls, shortened by ``SHORT`` where they are long; ``NOT_EXECUTED`` says why
the others are not.
"""

import argparse
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mbrl_flat.cli import commands as cli
from mbrl_flat.cli.arguments import parse_arguments
from mbrl_flat.compare import main as compare

ROOT = Path(cli.__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENTRIES = ("train", "evaluate", "probe", "export", "supervised", "compare")
OURS = tuple(f"mbrl-flat-{entry}" for entry in ENTRIES)
OTHERS = {
    "buildah": "builds an image; tests/test_container.py does",
    "cd": "moves",
    "docker": "needs a Docker engine; what follows the image's name is checked",
    "git": "needs a network",
    "make": "sets a whole environment up",
    "pip": "needs a network",
    "ray": "starts a cluster",
    "sbatch": "needs a cluster",
    "sinfo": "needs a cluster",
    "squeue": "needs a cluster",
    "scontrol": "needs a cluster",
    "sh": "names a script of this repository",
    "bash": "names a script of this repository",
    "wandb": "needs an account",
}
PROGRAMS = (*OURS, "python", "torchrun", *OTHERS)
STAND_IN = """#!{python}
import json, sys
with open({record!r}, "a") as file:
    file.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
"""


@dataclass(frozen=True)
class Call:
    """One program with its arguments, and the page that shows it."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def blocks(page: Path) -> Iterator[str]:
    """Blocks in a shell's language, and those without one that begin with a program."""
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        first = text.split(maxsplit=1)[0] if text.strip() else ""
        if language in ("bash", "sh", "console") or (
            not language and (first in (*PROGRAMS, "for", "export") or re.match(r"[A-Z_]+=", first))
        ):
            yield text


@pytest.fixture(scope="session")
def record(tmp_path_factory):
    """Run all blocks of a page with stand-ins, and return the calls."""
    folder = tmp_path_factory.mktemp("stand_ins")
    log = folder / "log"
    for name in set(PROGRAMS) - {"cd"}:
        file = folder / name
        file.write_text(STAND_IN.format(python=sys.executable, record=str(log), name=name))
        file.chmod(0o755)

    def calls(page: Path) -> list[Call]:
        found = []
        for text in blocks(page):
            log.write_text("")
            script = re.sub(r"^\$ ", "", text, flags=re.MULTILINE).replace(" ... ", " ")
            done = subprocess.run(
                ["/bin/bash", "-c", script],
                cwd=ROOT,
                env={**os.environ, "PATH": f"{folder}:/usr/bin:/bin"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.stderr == "", f"{page.name}: {done.stderr}"
            found += [tuple(json.loads(line)) for line in log.read_text().splitlines()]
        name = str(page.relative_to(ROOT))
        return [Call(name, words) for words in dict.fromkeys(found)]

    return calls


def composed(config: str, overrides: list[str]):
    GlobalHydra.instance().clear()
    with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        return compose(config, overrides=overrides)


def expanded(words: list[str]) -> list[list[str]]:
    """One list of overrides for a run; for a sweep, the first and the last value of each."""
    words = [word for word in words if word not in ("-m", "--multirun")]
    ends: tuple[list[str], list[str]] = ([], [])
    for override in OverridesParser.create().parse_overrides(words):
        if override.get_key_element().startswith("hydra"):
            continue
        line = override.input_line
        if override.is_sweep_override():
            values = list(override.sweep_string_iterator())
            ends[0].append(f"{override.get_key_element()}={values[0]}")
            ends[1].append(f"{override.get_key_element()}={values[-1]}")
        else:
            ends[0].append(line)
            ends[1].append(line)
    return [ends[0]] if ends[0] == ends[1] else list(ends)


def check_train(words: list[str]) -> None:
    parse_arguments(words, command="train", sweeps=True)
    for overrides in expanded(words):
        cfg = composed("train", overrides)
        cli.build_run(cfg)
        if cfg.resume is None:
            OmegaConf.to_yaml(cfg, resolve=True)
            instantiate(cfg.optimizer, _convert_="all")


def check_evaluate(words: list[str]) -> None:
    composed("evaluate", parse_arguments(words, command="evaluate", sweeps=False))


def check_probe(words: list[str]) -> None:
    words = parse_arguments(words, command="probe", sweeps=False)
    instantiate(composed("probe", words).probe, _convert_="all")


def check_export(words: list[str]) -> None:
    composed("export", parse_arguments(words, command="export", sweeps=False))


def check_supervised(words: list[str]) -> None:
    parse_arguments(words, command="supervised", sweeps=True)
    for overrides in expanded(words):
        cfg = composed("supervised", overrides)
        if cfg.resume is None:
            assert cfg.study, overrides
            instantiate(cfg.study, _convert_="all")


class ParsedError(Exception):
    """The arguments were taken."""


def parse_only(function, words: list[str], monkeypatch) -> None:
    """Call a program whose parser takes the arguments, and go no further."""
    ways = ("parse_args", "parse_known_args", "parse_intermixed_args")
    originals = {way: getattr(argparse.ArgumentParser, way) for way in ways}

    def parse(way: str, self, *arguments, **named):
        for name, original in originals.items():
            setattr(argparse.ArgumentParser, name, original)
        originals[way](self, *arguments, **named)
        raise ParsedError

    with monkeypatch.context() as patch:
        for way in ways:
            patch.setattr(
                argparse.ArgumentParser,
                way,
                lambda self, *a, way=way, **k: parse(way, self, *a, **k),
            )
        patch.setattr(sys, "argv", ["program", *words])
        patch.syspath_prepend(str(ROOT / "scripts"))
        with pytest.raises(ParsedError):
            function()


def check_compare(words: list[str], monkeypatch) -> None:
    parse_only(lambda: compare.main(words), words, monkeypatch)


def check_python(words: list[str], monkeypatch) -> None:
    if words[0] == "-m":
        assert words[1] in ("pytest", "venv", "torch.distributed.run"), words
        return
    script = ROOT / words[0]
    assert script.is_file(), f"there is no {words[0]}"
    if "ArgumentParser" in script.read_text():
        parse_only(lambda: runpy.run_path(str(script), run_name="__main__"), words[1:], monkeypatch)


def check_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(words)
    assert parsed.no_python, words
    assert parsed.training_script == "mbrl-flat-train"
    check_train(parsed.training_script_args)


def check_docker(words: list[str]) -> None:
    """A run's words are overrides; a build's arguments are those of the Dockerfile."""
    if words[0] == "run" and "--entrypoint" not in words:
        check_train(words[words.index("mbrl-flat") + 1 :])
    dockerfile = (ROOT / "Dockerfile").read_text()
    for flag, value in pairwise(words):
        if flag == "--build-arg":
            assert re.search(rf"^ARG {value.partition('=')[0]}\b", dockerfile, re.MULTILINE), value


def check_pip(words: list[str]) -> None:
    """Extras that are named exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for named in re.findall(r"(?:mbrl-flat|\.)\[([\w,-]+)\]", " ".join(words)):
        assert set(named.split(",")) <= set(extras["optional-dependencies"]), words


def check(call: Call, monkeypatch) -> None:
    program, words = call.words[0], list(call.words[1:])
    checks = {
        "mbrl-flat-train": check_train,
        "mbrl-flat-evaluate": check_evaluate,
        "mbrl-flat-probe": check_probe,
        "mbrl-flat-export": check_export,
        "mbrl-flat-supervised": check_supervised,
        "torchrun": check_torchrun,
        "docker": check_docker,
        "pip": check_pip,
    }
    if program in checks:
        checks[program](words)
    elif program == "mbrl-flat-compare":
        check_compare(words, monkeypatch)
    elif program == "python":
        check_python(words, monkeypatch)
    elif program in ("sh", "bash"):
        assert (ROOT / words[0]).is_file(), words
    else:
        assert program in OTHERS, program


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_names_what_there_is(page, record, monkeypatch):
    for call in record(page):
        try:
            check(call, monkeypatch)
        except BaseException as error:
            raise AssertionError(f"{call}\n{error}") from error


def test_pages_show_commands():
    assert sum(1 for page in PAGES for _ in blocks(page)) > 10


SHORT = {
    "preset": "debug", "steps": "40", "seed_steps": "20", "log_every": "20", "eval_every": "20",
    "eval_episodes": "1", "probe_every": "40", "checkpoint_every": "20", "progress": "false",
    "threads": "1", "device": "cpu", "updates_per_step": "0",
}  # fmt: skip
SMALL = {
    "mbrl-flat-evaluate": {"episodes": "1", "threads": "1"},
    "mbrl-flat-probe": {"episodes": "1", "threads": "1"},
    "mbrl-flat-export": {"threads": "1"},
    "mbrl-flat-supervised": {"preset": "ci", "threads": "1"},
}
NOT_EXECUTED = {
    r"humanoid_bench": "needs a package that is not on PyPI",
    r"metaworld:|myosuite:": "needs a package that pins others",
    r"run=\S+ probe=open_loop": "needs an agent with a decoder",
    r"\bmy_\w+": "needs a module of the reader; the tests of its kind make one",
    r"checkpoint=": "needs a file that the authors published",
    r" (-m|--multirun) ": "is a sweep; the tests of sweeps run some",
    r"runs/\S+ --by variant": "compares the runs of a sweep",
    r"wandb.mode=online|--entity": "needs an account",
    r"scripts/(bench\w*|kill_resume|open_loop_atari|minatar_baseline)\.py": "measures for minutes",
    r"scripts/gpu_check\.py": "measures for minutes",
    r"--(reference|expert) ": "compares runs of tasks that have published curves",
    r"experiment=(?!label_noise)\w+ .*preset=ci": "runs at this preset in the tests of studies",
    r"nproc-per-node=([3-9]|\d\d)": "asks for more processes than a small machine has cores",
    r"nnodes": "needs several machines",
    r"resume=runs/central_claim": "resumes a study that is not executed here",
    r"runs/longer": "needs runs of two optimizers",
    r"runs/mt30": "needs recordings of thirty tasks",
    r"python -m": "is a tool's own command",
}


STEPS, RESUMED_STEPS = "200", "220"
"""Length of the runs that stand for all others, before and after they are resumed."""


def shortened(call: Call) -> list[str]:
    """The call with what makes it long replaced."""
    words = list(call.words)
    resumed = any(word.startswith("resume=") for word in words)
    if resumed and words[0] == "mbrl-flat-supervised":
        return words
    if words[0] in SMALL:
        replaced = SMALL[words[0]]
    elif "mbrl-flat-train" in words:
        replaced = {"steps": RESUMED_STEPS, "progress": "false"} if resumed else SHORT
    else:
        return words
    gone = ("agent.config.size", *replaced)
    kept = [word for word in words if word.partition("=")[0] not in gone]
    return [*kept, *(f"{key}={value}" for key, value in replaced.items())]


def execute(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    programs = Path(sys.executable).parent
    first = {
        "python": [sys.executable],
        "torchrun": [sys.executable, "-m", "torch.distributed.run"],
    }
    command = first.get(words[0], [str(programs / words[0])]) + words[1:]
    path = f"{programs}:{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


@dataclass(frozen=True)
class Reader:
    """One who has the scripts, the docs and the runs that a page speaks of, in a folder."""

    folder: Path

    def provide(self, word: str) -> list[str]:
        """Make stand-ins for runs that are named and not there; expand globs as a shell does."""
        key, equals, value = word.rpartition("=")
        if key == "offline_data":
            return ["offline_data=[recorded/*]"]
        if not value.startswith("runs/") or key not in ("", "run", "resume"):
            return [word]
        if not list(self.folder.glob(value)):
            run = self.folder / value.replace("*", "1")
            shutil.copytree(self.folder / "runs" / "NAME", run)
        return [f"{key}{equals}{path.relative_to(self.folder)}" for path in self.folder.glob(value)]

    def execute(self, words: list[str]) -> None:
        words = [provided for word in words for provided in self.provide(word)]
        done = execute(words, self.folder)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr[-2000:]}"


@pytest.fixture(scope="session")
def runs_of_a_reader(tmp_path_factory) -> Path:
    """A short run, of which copies stand for all others, one of SAM, and two recordings."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    # Several episodes, some held out, so that every probe has something to measure.
    whole = ["env=dummy", "env.episode_length=20", f"steps={STEPS}", "heldout_fraction=0.3"]
    runs = {"runs/NAME": whole, "runs/SAM": [*whole, "optimizer=sam"]}
    for task in ("walker-walk", "cheetah-run"):
        runs[f"recorded/{task}"] = [f"env.task={task}", "agent=random", "steps=500", "eval_every=0"]
        runs[f"recorded/{task}"] += ["env.action_repeat=2"]  # as the experiment that reads them
    for name, words in runs.items():
        keys = {word.partition("=")[0] for word in words}
        short = [f"{key}={value}" for key, value in SHORT.items() if key not in keys]
        reader.execute(["mbrl-flat-train", *short, *words, f"run_dir={name}"])
    return reader.folder


@pytest.fixture
def reader(runs_of_a_reader, tmp_path) -> Reader:
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    # A copy: pages write their reports there.
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(runs_of_a_reader, tmp_path, dirs_exist_ok=True)
    return Reader(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_runs(page, record, reader):
    done: set[tuple[str, ...]] = set()
    for call in record(page):
        words = shortened(call)
        line = " ".join(words)
        why_not = OTHERS.get(words[0]) or next(
            (why for pattern, why in NOT_EXECUTED.items() if re.search(pattern, line)), None
        )
        if why_not is None and tuple(words) not in done:
            done.add(tuple(words))
            try:
                reader.execute(words)
            except AssertionError as error:
                raise AssertionError(f"{call}\nas {error}") from None
