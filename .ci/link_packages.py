"""Give an environment packages of this one by links: ``link_packages.py FOLDER [NAME ...]``.

With names, those distributions and what they require, without extras; else all but mbrl-flat.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement


def closure(names):
    """The distributions and all that they require here."""
    found, waiting = {}, list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform
        for text in found[name].requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found.values()


def main():
    """Link every file or folder at the top of the distributions."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True)
    chosen = closure(names) if names else distributions()
    for dist in chosen:
        if dist.metadata["Name"] == "mbrl-flat":
            continue
        for top in {file.parts[0] for file in dist.files or [] if file.parts[0] != ".."}:
            link, target = folder / top, Path(dist.locate_file(top))
            if target.exists() and not link.exists() and top != "__pycache__":
                link.symlink_to(target)


main()
