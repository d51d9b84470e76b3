"""Networks of the papers' recipes, each with the normalisation that is asked for."""

from mbrl_flat.studies.models.cnn import SmallCNN as SmallCNN
from mbrl_flat.studies.models.normalisation import NORMS as NORMS
from mbrl_flat.studies.models.normalisation import normalised_weights as normalised_weights
from mbrl_flat.studies.models.perceptron import Perceptron as Perceptron
from mbrl_flat.studies.models.resnet import ResNet20 as ResNet20
from mbrl_flat.studies.models.resnet import WideResNet as WideResNet
from mbrl_flat.studies.models.vit import VisionTransformer as VisionTransformer
