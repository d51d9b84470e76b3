"""Networks of the papers' recipes, each with the normalisation that is asked for."""

from mbrl_flat.studies.models.cnn import SmallCNN
from mbrl_flat.studies.models.normalisation import NORMS, normalised_weights
from mbrl_flat.studies.models.perceptron import Perceptron
from mbrl_flat.studies.models.resnet import ResNet20, WideResNet
from mbrl_flat.studies.models.vit import VisionTransformer

__all__ = [
    "NORMS",
    "Perceptron",
    "ResNet20",
    "SmallCNN",
    "VisionTransformer",
    "WideResNet",
    "normalised_weights",
]
