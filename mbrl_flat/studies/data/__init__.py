"""Small sets of labelled data, behind one function."""

from mbrl_flat.studies.data.catalogue import DATASETS as DATASETS
from mbrl_flat.studies.data.catalogue import TORCHVISION as TORCHVISION
from mbrl_flat.studies.data.catalogue import load_data as load_data
from mbrl_flat.studies.data.noise import symmetric_label_noise as symmetric_label_noise
from mbrl_flat.studies.data.regression import chebyshev as chebyshev
from mbrl_flat.studies.data.regression import deep_linear as deep_linear
from mbrl_flat.studies.data.splits import Split as Split
from mbrl_flat.studies.data.splits import class_split as class_split
from mbrl_flat.studies.data.splits import split_indices as split_indices
from mbrl_flat.studies.data.splits import standardised as standardised
from mbrl_flat.studies.data.splits import train_validation_test as train_validation_test
