"""Full-batch training on a few hundred digits, with the sharpness followed along the way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.data import load_data, standardised
from mbrl_flat.studies.edge_of_stability.curvature import Curvature, CurvatureTracker
from mbrl_flat.studies.models import Perceptron, SmallCNN, VisionTransformer
from mbrl_flat.studies.training import Recipe, StepInfo, half_squared_error, train

NETWORKS = ("mlp", "cnn", "vit")

Extra = Callable[[nn.Module, Curvature, StepInfo], Mapping[str, float]]
"""What else is measured where the curvature is."""


@dataclass(frozen=True, kw_only=True)
class FullBatchDigits(CheckedSettings):
    """The first digits in one batch, in float64; half the squared error against one-hot labels.

    Attributes:
        size: Examples.
        network: ``mlp``, ``cnn`` or ``vit``.
        hidden: Widths of the perceptron's hidden layers.
        channels: Of the convolutional network's blocks.
        width: Of the transformer's tokens.
        norm: Normalisation of perceptron and convolutional network.
        activation: Theirs.
    """

    size: int = setting(500, "[1, inf)")
    network: str = "mlp"
    hidden: Sequence[int] = setting((32, 32), "[1, inf)")
    channels: Sequence[int] = setting((8, 16), "[1, inf)")
    width: int = setting(32, "[1, inf)")
    norm: str = "none"
    activation: str = "tanh"

    def check_data(self) -> None:
        """Refuse to begin without the digits, with more than there are, or with no network."""
        x, _ = load_data("digits")
        if self.size >= len(x):
            raise UserError(f"size must be below {len(x)}, all digits, got {self.size}.")
        with restored_rng():
            self.model(0)

    def data(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Training inputs and labels, and those of all other digits to test on."""
        x, y = load_data("digits")
        inputs, others = standardised(x[: self.size].double(), x[self.size :].double())
        return inputs, y[: self.size], others, y[self.size :]

    def model(self, seed: int) -> nn.Module:
        """The network at the start that ``seed`` determines."""
        torch.manual_seed(seed)
        if self.network == "mlp":
            model: nn.Module = Perceptron(
                64, self.hidden, 10, norm=self.norm, activation=self.activation
            )
        elif self.network == "cnn":
            model = SmallCNN(
                1, 8, 10, channels=self.channels, norm=self.norm, activation=self.activation
            )
        elif self.network == "vit":
            model = VisionTransformer(1, 8, 10, width=self.width, heads=2)
        else:
            raise UnknownNameError("network", self.network, NETWORKS)
        return model.double()


class Recorder:
    """Follows the curvature of the training loss: give it to ``train`` as ``on_step``.

    Args:
        model: What is trained.
        x: All inputs.
        y: All labels.
        every: Steps between measurements.
        extra: What else to measure there.

    Attributes:
        curves: For each measured quantity its values; ``step`` says where.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, every: int, extra: Extra | None = None
    ) -> None:
        self.model, self.every, self.extra = model, every, extra
        params = [p for p in model.parameters() if p.requires_grad]
        self.tracker = CurvatureTracker(lambda: half_squared_error(model(x), y), params)
        self.curves: dict[str, list[float]] = {"step": [], "loss": [], "sharpness": []}

    def __call__(self, info: StepInfo) -> None:
        """Measure if it is time."""
        if info.step % self.every:
            return
        here = self.tracker()
        row = {"step": float(info.step), "loss": here.loss, "sharpness": here.sharpness}
        if self.extra is not None:
            row |= self.extra(self.model, here, info)
        for name, value in row.items():
            self.curves.setdefault(name, []).append(value)

    def tail(self, name: str, share: float) -> Tensor:
        """The last ``share`` of a curve ``[n]``, float64."""
        values = torch.tensor(self.curves[name], dtype=torch.float64)
        return values[-max(1, round(share * len(values))) :]

    def at(self, name: str, share: float) -> float:
        """A curve's value at this share of the run."""
        values = self.curves[name]
        return values[min(round(share * len(values)), len(values) - 1)]


def full_batch_recipe(
    optimizer: str, lr: float, steps: int, *, weight_decay: float = 0.0, **settings: Any
) -> Recipe:
    """Full-batch training at a constant learning rate, without momentum, on the squared error."""
    return Recipe(
        optimizer=optimizer,
        settings=settings,
        lr=lr,
        momentum=0.0,
        weight_decay=weight_decay,
        epochs=steps,
        batch_size=None,
        schedule="constant",
        loss="squared",
        max_loss=1e3,
    )


def follow(
    task: FullBatchDigits,
    recipe: Recipe,
    *,
    seed: int,
    every: int,
    extra: Callable[[nn.Module, Tensor, Tensor], Extra] | None = None,
) -> Recorder:
    """Train once and follow the curvature.

    Args:
        task: Data and network.
        recipe: How; its batch is all of the data.
        seed: Determines the start and the optimizer's noise.
        every: Steps between measurements.
        extra: Makes what else is measured, given model, inputs and labels.

    Returns:
        The curves.
    """
    x, y, _, _ = task.data()
    model = task.model(seed)
    measure = None if extra is None else extra(model, x, y)
    recorder = Recorder(model, x, y, every=every, extra=measure)
    train(model, x, y, recipe, seed=seed, on_step=recorder)
    return recorder


def rounded(values: Sequence[float]) -> list[float]:
    """Curves for ``rows.jsonl``: five significant digits, at most 200 points."""
    stride = -(-len(values) // 200)
    return [float(f"{value:.5g}") for value in values[::stride]]
