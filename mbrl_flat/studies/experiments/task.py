"""Digits with noisy labels, and networks that memorise them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UnknownNameError
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.data import (
    Split,
    load_data,
    standardised,
    symmetric_label_noise,
    train_validation_test,
)
from mbrl_flat.studies.experiments.methods import method_optimizer
from mbrl_flat.studies.framework import Trial, Value
from mbrl_flat.studies.models import Perceptron, SmallCNN, VisionTransformer
from mbrl_flat.studies.sharpness import measure_sharpness
from mbrl_flat.studies.training import (
    Recipe,
    StepInfo,
    Trained,
    accuracy,
    build_base,
    loss_function,
    train,
)

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: Perceptron(64, (128, 128), 10, norm="batch"),
    "cnn": lambda: SmallCNN(1, 8, 10, channels=(16, 32), norm="batch"),
    "vit": lambda: VisionTransformer(1, 8, 10, patch_size=4, width=48, depth=2, heads=3),
}
"""Networks for 8x8 images: two with BatchNorm, one with LayerNorm."""

_BASES: dict[str, tuple[str, float, float]] = {
    "mlp": ("sgd", 0.1, 5e-4),
    "cnn": ("sgd", 0.1, 5e-4),
    "vit": ("adamw", 3e-3, 0.05),
}
"""Base optimizer of each network, its learning rate and weight decay."""

_SHARPNESS_EXAMPLES = 256


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A model that was trained on a task.

    Attributes:
        model: In evaluation mode.
        split: What it was trained on, with the noisy labels, and the rest.
        recipe: Optimizer, learning rate, batch size, epochs and loss.
        trained: What training reported.
    """

    model: nn.Module
    split: Split
    recipe: Recipe
    trained: Trained

    def scores(self) -> dict[str, Value]:
        """Accuracies in percent, and the mean cosine of successive perturbations."""
        return {
            "test_accuracy": 100.0 * accuracy(self.model, *self.split.test),
            "validation_accuracy": 100.0 * accuracy(self.model, *self.split.validation),
            "train_accuracy": 100.0 * accuracy(self.model, *self.split.train),
            "cosine": self.trained.cosine,
        }

    def sharpness(self) -> dict[str, Value]:
        """Sharpness of the loss on noisy training examples, in evaluation mode."""
        x, y = (part[:_SHARPNESS_EXAMPLES] for part in self.split.train)
        measured = measure_sharpness(self.model, x, y, loss_function(self.recipe))
        return {name: measured[name] for name in ("lambda_max", "sam_gap", "param_norm")}


@dataclass(frozen=True, kw_only=True)
class NoisyDigits(CheckedSettings):
    """The task; its settings.

    Attributes:
        network: ``mlp`` (64-128-128-10), ``cnn`` (two blocks) or ``vit`` (two layers).
        noise: Share of the training labels that is resampled, uniformly over all classes.
        train_size: Training examples.
        validation_size: Examples, with right labels, by which settings are chosen.
        epochs: Length of training; the learning rate falls to 0 along a cosine.
        batch_size: Examples in a step.
    """

    network: str = "mlp"
    noise: float = setting(0.4, "[0, 1]")
    train_size: int = setting(900, "[1, inf)")
    validation_size: int = setting(300, "[1, inf)")
    epochs: int = setting(40, "[1, inf)")
    batch_size: int = setting(64, "[1, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network not in NETWORKS:
            raise UnknownNameError("network", self.network, NETWORKS)

    def check_data(self) -> None:
        """Refuse to begin without the digits, or with more than there are."""
        self.split(0)

    def split(self, seed: int) -> Split:
        """Make the three parts, standardised, the training labels noisy."""
        x, y = _digits()
        parts = train_validation_test(
            x, y, train=self.train_size, validation=self.validation_size, seed=seed
        )
        inputs = standardised(*(part[0] for part in parts))
        labels = [part[1] for part in parts]
        labels[0] = symmetric_label_noise(labels[0], self.noise, num_classes=10, seed=seed)
        train_part, validation, test = zip(inputs, labels, strict=True)
        return Split(train_part, validation, test)

    def recipe(self) -> Recipe:
        """How to train, but for the method."""
        base, lr, weight_decay = _BASES[self.network]
        method = {"optimizer": base, "base": base, "lr": lr, "weight_decay": weight_decay}
        return Recipe(**method, epochs=self.epochs, batch_size=self.batch_size)

    def model(self, seed: int) -> nn.Module:
        """Make the network with the weights that it starts from."""
        torch.manual_seed(seed)
        return NETWORKS[self.network]()

    def fitted(self, cell: Trial, *, on_step: Callable[[StepInfo], None] | None = None) -> Fitted:
        """Train by the cell's ``method`` at its ``rho``, everything else by its ``seed``."""
        seed = cell["seed"]
        split, recipe, model = self.split(seed), self.recipe(), self.model(seed)
        optimizer = method_optimizer(
            cell["method"], model, base=build_base(recipe), rho=cell["rho"]
        )
        # None of the networks draws anything, so there are no streams to keep.
        optimizer.same_rng = False
        trained = train(
            model, *split.train, recipe, seed=seed, optimizer=optimizer, on_step=on_step
        )
        return Fitted(model=model, split=split, recipe=recipe, trained=trained)

    def measure(self, cell: Trial) -> dict[str, Value]:
        """Train once; accuracies and sharpness."""
        fitted = self.fitted(cell)
        return {**fitted.scores(), **fitted.sharpness()}


@lru_cache(maxsize=1)
def _digits() -> tuple[Tensor, Tensor]:
    return load_data("digits")
