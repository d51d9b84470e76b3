"""Digits with noisy labels and the network that learns them by heart."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mbrl_flat.supervised.data import (
    Split,
    load_data,
    standardised,
    symmetric_label_noise,
    train_validation_test,
)
from mbrl_flat.supervised.experiments.sweep import optimizer_of
from mbrl_flat.supervised.models import Perceptron
from mbrl_flat.supervised.sharpness import measure_sharpness
from mbrl_flat.supervised.study import Cell
from mbrl_flat.supervised.study.study import Value
from mbrl_flat.supervised.training import Recipe, Trained, accuracy, loss_function, train


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A model that was trained on a task.

    Attributes:
        model: In evaluation mode.
        split: What it was trained on, with the noisy labels, and the rest.
        recipe: How.
        trained: What training reported.
    """

    model: nn.Module
    split: Split
    recipe: Recipe
    trained: Trained

    def scores(self) -> dict[str, Value]:
        """Accuracies in percent, the cosine of successive displacements, the sharpness."""
        sharp = measure_sharpness(self.model, *self.split.train, loss_function(self.recipe))
        return {
            "test_accuracy": 100.0 * accuracy(self.model, *self.split.test),
            "validation_accuracy": 100.0 * accuracy(self.model, *self.split.validation),
            "train_accuracy": 100.0 * accuracy(self.model, *self.split.train),
            "cosine": self.trained.cosine,
            "lambda_max": sharp["lambda_max"],
            "sam_gap": sharp["sam_gap"],
            "param_norm": sharp["param_norm"],
        }


@dataclass(frozen=True, kw_only=True)
class NoisyDigits:
    """The task of the label-noise study; its settings.

    Attributes:
        noise: Share of the training labels that is drawn anew.
        train_size: Training examples.
        validation_size: Examples, with right labels, by which settings are chosen.
        hidden: Widths of the hidden layers.
        norm: Normalisation of the network.
        epochs: Length of training.
        batch_size: Examples in a step.
        lr: Learning rate of SGD at the start; it falls to 0 along a cosine.
        momentum: Of SGD.
        weight_decay: Of SGD.
    """

    noise: float = 0.4
    train_size: int = 900
    validation_size: int = 300
    hidden: Sequence[int] = (128, 128)
    norm: str = "batch"
    epochs: int = 80
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def split(self, seed: int) -> Split:
        """The three parts, standardised, the training labels noisy."""
        x, y = load_data("digits")
        parts = train_validation_test(
            x, y, train=self.train_size, validation=self.validation_size, seed=seed
        )
        inputs = standardised(*(part[0] for part in parts))
        labels = [part[1] for part in parts]
        labels[0] = symmetric_label_noise(labels[0], self.noise, num_classes=10, seed=seed)
        return Split(*zip(inputs, labels, strict=True))

    def recipe(self, method: str, rho: float) -> Recipe:
        """How a method trains at a radius."""
        name, settings = optimizer_of(method, rho)
        return Recipe(
            optimizer=name,
            settings=settings,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            batch_size=self.batch_size,
        )

    def model(self) -> Perceptron:
        """The network at its start, from the global stream."""
        return Perceptron(64, self.hidden, 10, norm=self.norm)

    def trained(self, cell: Cell) -> Fitted:
        """Train with the cell's ``method`` at its ``rho``, everything else by its ``seed``."""
        seed = int(cell["seed"] or 0)
        split = self.split(seed)
        recipe = self.recipe(str(cell["method"]), float(cell["rho"] or 0.0))
        torch.manual_seed(seed)
        model = self.model()
        trained = train(model, *split.train, recipe, seed=seed)
        return Fitted(model=model, split=split, recipe=recipe, trained=trained)
