"""What a docstring says of a setting's range is the range that is checked."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from mbrl_flat.optim.signature import meanings

PACKAGES = ("mbrl_flat", "mbrl_flat.agents", "mbrl_flat.envs")
STARTS = {"above 0": "(0,", "at least 0": "[0,", "at least 1": "[1,"}


def classes() -> Iterator[type]:
    for root in PACKAGES:
        package = importlib.import_module(root)
        for module in pkgutil.walk_packages(package.__path__, f"{root}."):
            if "humanoid_bench" in module.name:  # a package that is not on PyPI
                continue
            yield from vars(importlib.import_module(module.name)).values()


def test_docstrings_name_the_ranges_that_are_checked():
    kinds = {kind for kind in classes() if isinstance(kind, type) and is_dataclass(kind)}
    checked, wrong = 0, []
    for kind in kinds:
        told = meanings(kind)
        for setting in fields(kind):
            allowed = setting.metadata.get("allowed")
            for words, start in STARTS.items():
                if allowed and words in told.get(setting.name, ""):
                    checked += 1
                    if not allowed.startswith(start):
                        wrong.append(f"{kind.__qualname__}.{setting.name}: {words}, {allowed}")

    assert not wrong
    assert checked > 10
