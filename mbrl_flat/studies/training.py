"""Training of a classifier or a regression with any optimizer of the registry."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.errors import DivergedError, NonFiniteError, UnknownNameError, UserError
from mbrl_flat.optim import OPTIMIZERS, FlatOptimizer, make_optimizer
from mbrl_flat.optim.base_optimizers import BASES, BaseFactory
from mbrl_flat.runtime.interrupts import check_interrupt
from mbrl_flat.settings import CheckedSettings, setting

LossName = Literal["cross_entropy", "squared"]


@dataclass(frozen=True, kw_only=True)
class Recipe(CheckedSettings):
    """How to train.

    Attributes:
        optimizer: Name in the registry.
        settings: The method's own settings, such as ``{"rho": 0.05}``.
        base: Name of the optimizer that takes the final gradient, for methods that have one.
        lr: Learning rate at the start.
        momentum: Of SGD.
        weight_decay: As the base understands it.
        epochs: Passes over the data; with a full batch one step each.
        batch_size: Examples in a step; ``None`` means all of them.
        schedule: ``constant``, or ``cosine`` to 0 step by step.
        warmup_epochs: Linear rise of the learning rate at the start.
        loss: ``cross_entropy``, or ``squared``: half the sum of squares over outputs against
            one-hot labels or real targets. Either is the mean over examples.
        label_smoothing: Of the cross-entropy, as torch defines it.
        max_grad_norm: Bound on the norm of the final gradient.
        max_loss: A loss above it counts as divergence.
    """

    optimizer: str = "sgd"
    settings: Mapping[str, Any] = field(default_factory=dict)
    base: str = "sgd"
    lr: float = setting(0.1, "(0, inf)")
    momentum: float = 0.9
    weight_decay: float = 0.0
    epochs: int = setting(10, "[1, inf)")
    batch_size: int | None = setting(64, "[1, inf)")
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: float = 0.0
    loss: LossName = "cross_entropy"
    label_smoothing: float = 0.0
    max_grad_norm: float | None = None
    max_loss: float = setting(math.inf, "(0, inf]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)
        if self.base not in BASES:
            raise UnknownNameError("base optimizer", self.base, BASES)


@dataclass(frozen=True, kw_only=True)
class StepInfo:
    """What ``train`` shows of a step that has just been made.

    Attributes:
        step: Counted from 0.
        loss: What the optimizer returned: for most methods the loss before the step.
        optimizer: Its ``last`` has the report of the step.
    """

    step: int
    loss: float
    optimizer: FlatOptimizer


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training leaves besides the weights.

    Attributes:
        optimizer: The optimizer, with its memory.
        steps: Steps made.
        loss: What the last step returned.
        cosine: Mean cosine between successive perturbations, NaN if there were none.
    """

    optimizer: FlatOptimizer
    steps: int
    loss: float
    cosine: float


def loss_function(recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of outputs ``[N, K]`` and labels ``[N]`` or targets ``[N, K]``."""
    if recipe.loss == "squared":
        return half_squared_error
    return partial(F.cross_entropy, label_smoothing=recipe.label_smoothing)


def half_squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    """``0.5 * sum_k (o_k - y_k)^2``, the mean over examples; integer labels become one-hot.

    Args:
        outputs: ``[N, K]``.
        y: Labels ``[N]``, int64, or targets ``[N, K]``.

    Returns:
        A scalar.
    """
    target = y if y.is_floating_point() else F.one_hot(y, outputs.shape[-1]).to(outputs.dtype)
    return 0.5 * (outputs - target).square().sum(-1).mean()


def build_base(recipe: Recipe) -> BaseFactory:
    """Make the factory of the optimizer that takes the final gradient."""
    settings: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.base == "sgd":
        settings["momentum"] = recipe.momentum
    if recipe.base in ("sgd", "adam", "adamw"):
        settings["fused"] = True
    return partial(BASES[recipe.base], **settings)


def build_optimizer(model: nn.Module, recipe: Recipe) -> FlatOptimizer:
    """Make the recipe's optimizer for all weights of a model."""
    entry = OPTIMIZERS[recipe.optimizer]
    settings = dict(recipe.settings)
    if recipe.max_grad_norm is not None:
        settings["max_grad_norm"] = recipe.max_grad_norm
    if entry.has_base:
        return make_optimizer(recipe.optimizer, model, base=build_base(recipe), **settings)
    plain = {"weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        plain["momentum"] = recipe.momentum
    plain = {name: value for name, value in plain.items() if name in entry.settings}
    return make_optimizer(recipe.optimizer, model, lr=recipe.lr, **plain, **settings)


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    optimizer: FlatOptimizer | None = None,
    on_step: Callable[[StepInfo], None] | None = None,
) -> Trained:
    """Train a model in place.

    The order of the examples follows from ``seed``; the last incomplete batch of an epoch is left
    out. The model stays in training mode within, and is in evaluation mode afterwards.

    Args:
        model: Maps ``[B, ...]`` to ``[B, K]``.
        x: Inputs ``[N, ...]``, in the model's dtype.
        y: Labels ``[N]`` or targets ``[N, K]``.
        recipe: Optimizer, learning rate, batch size, epochs and loss.
        seed: Determines the order of the examples.
        optimizer: In place of the recipe's, for one that is not in the registry.
        on_step: Called after each step, in training mode; it may measure, not change anything.

    Returns:
        The optimizer and what it reported.

    Raises:
        DivergedError: If the loss or a gradient is not finite, or the loss above its bound.
    """
    optimizer, loss_of = optimizer or build_optimizer(model, recipe), loss_function(recipe)
    generator = torch.Generator().manual_seed(seed)
    total = recipe.epochs * _steps_per_epoch(len(x), recipe)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _factors(recipe, total, len(x)))
    cosines: list[float] = []
    loss = math.nan
    model.train()
    for step, batch in enumerate(_batches(len(x), recipe, generator)):
        check_interrupt()
        inputs, labels = (x, y) if batch is None else (x[batch], y[batch])
        batch_loss = lambda: loss_of(model(inputs), labels)  # noqa: B023, E731 - called now
        loss = float(take_step(optimizer, batch_loss, step=step))
        if loss > recipe.max_loss:
            raise DivergedError(step, f"the loss is {loss:.4g}, above {recipe.max_loss:g}.")
        scheduler.step()
        if step > 0 and float(optimizer.last["perturbation_norm"]) > 0.0:
            cosines.append(float(optimizer.last["cosine"]))
        if on_step is not None:
            on_step(StepInfo(step=step, loss=loss, optimizer=optimizer))
    model.eval()
    cosine = math.fsum(cosines) / len(cosines) if cosines else math.nan
    return Trained(optimizer=optimizer, steps=total, loss=loss, cosine=cosine)


def take_step(optimizer: FlatOptimizer, loss_of: Callable[[], Tensor], *, step: int) -> Any:
    """Make one step on a loss.

    Args:
        optimizer: Whose step.
        loss_of: Computes the loss, as often as the optimizer wants.
        step: Its number, for the error.

    Returns:
        What the optimizer returned, for most methods the loss before the step.

    Raises:
        DivergedError: If the loss or a gradient is not finite.
    """
    try:
        return optimizer.step(closure_of(optimizer, loss_of))
    except NonFiniteError as error:
        raise DivergedError(step, str(error)) from error


def closure_of(optimizer: FlatOptimizer, loss_of: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """What an optimizer's step evaluates: a loss and its gradients, which replace the last ones."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss.detach()

    return closure


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of examples whose largest output is at their label, in evaluation mode.

    Args:
        model: Maps ``[N, ...]`` to ``[N, K]``; its mode is left as it is found.
        x: Inputs ``[N, ...]``.
        y: Class labels ``[N]``, whole numbers from 0.

    Returns:
        A number in [0, 1].
    """
    was_training = model.training
    model.eval()
    right = sum(
        int((model(part).argmax(-1) == labels).sum())
        for part, labels in zip(x.split(1024), y.split(1024), strict=True)
    )
    model.train(was_training)
    return right / len(x)


@torch.no_grad()
def refresh_statistics(model: nn.Module, x: Tensor, *, batch_size: int) -> None:
    """Estimate the running statistics of normalisation layers again at the current weights.

    Args:
        model: Left in the mode in which it is found.
        x: Inputs ``[N, ...]``; every statistic becomes its mean over their batches.
        batch_size: As in training; the last incomplete batch is left out.
    """
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "reset_running_stats")]
    momenta = [layer.momentum for layer in layers]
    was_training = model.training
    model.train()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over batches
    for part in x.split(batch_size):
        if len(part) == min(batch_size, len(x)):
            model(part)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(was_training)


def _steps_per_epoch(count: int, recipe: Recipe) -> int:
    if recipe.batch_size is None:
        return 1
    if count < recipe.batch_size:
        raise UserError(f"batch_size={recipe.batch_size} exceeds the {count} training examples.")
    return count // recipe.batch_size


def _batches(count: int, recipe: Recipe, generator: torch.Generator) -> Iterator[Tensor | None]:
    """Indices of each batch; ``None`` stands for all examples."""
    for _ in range(recipe.epochs):
        if recipe.batch_size is None:
            yield None
            continue
        order = torch.randperm(count, generator=generator)
        whole = count // recipe.batch_size * recipe.batch_size
        yield from order[:whole].view(-1, recipe.batch_size)


def _factors(recipe: Recipe, total: int, count: int) -> Callable[[int], float]:
    warmup = round(recipe.warmup_epochs * _steps_per_epoch(count, recipe))

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if recipe.schedule == "constant":
            return rise
        return rise * 0.5 * (1.0 + math.cos(math.pi * step / total))

    return factor
