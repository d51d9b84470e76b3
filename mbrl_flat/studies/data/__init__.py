"""Small sets of labelled data, behind one function."""

from mbrl_flat.studies.data.catalogue import DATASETS, TORCHVISION, load_data
from mbrl_flat.studies.data.noise import symmetric_label_noise
from mbrl_flat.studies.data.regression import chebyshev, deep_linear
from mbrl_flat.studies.data.splits import (
    Split,
    class_split,
    split_indices,
    standardised,
    train_validation_test,
)

__all__ = [
    "DATASETS",
    "TORCHVISION",
    "Split",
    "chebyshev",
    "class_split",
    "deep_linear",
    "load_data",
    "split_indices",
    "standardised",
    "symmetric_label_noise",
    "train_validation_test",
]
