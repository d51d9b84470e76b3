"""Train a world model on recorded transitions until a number of gradient evaluations is spent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.diagnostics.perturbed_sharpness import adaptive_sharpness
from mbrl_flat.diagnostics.sharpness import loss_regions, norms, sam_gap
from mbrl_flat.interfaces import ProbeLoss
from mbrl_flat.optim import OPTIMIZERS, FlatOptimizer, make_optimizer, module_groups
from mbrl_flat.runtime.interrupts import check_interrupt
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.studies.offline.offline_model import OfflineModel
from mbrl_flat.studies.offline.transitions import Subsequences, Transitions
from mbrl_flat.studies.sharpness import RHO, top_eigenvalue
from mbrl_flat.studies.training import take_step


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What training took.

    Attributes:
        updates: Steps of the optimizer.
        evaluations: Gradients of the loss that were computed.
    """

    updates: int
    evaluations: int


def build_optimizer(
    model: OfflineModel,
    name: str,
    *,
    lr: float,
    rho: float = 0.0,
    settings: Mapping[str, Any] | None = None,
) -> FlatOptimizer:
    """Make a method of the registry for a world model, on Adam where it has a base.

    Args:
        model: The network whose weights the optimizer moves.
        name: Name of the method in the registry of optimizers.
        lr: Learning rate, at least 0.
        rho: Radius; 0 for a method that has none.
        settings: Further settings of the method.

    Returns:
        The optimizer, with the model's own bound on the gradient.
    """
    groups = module_groups(model.trained_modules(), lr_scales=model.lr_scales)
    base = {"base": "adam", "rho": rho} if OPTIMIZERS[name].has_base else {}
    common = {"lr": lr, "max_grad_norm": model.max_grad_norm}
    return make_optimizer(name, groups, **{**common, **base, **(settings or {})})


def fit(
    model: OfflineModel,
    data: Transitions,
    optimizer: FlatOptimizer,
    *,
    evaluations: int,
    seed: int,
    points: Sequence[int] = (),
    at_point: Callable[[int], None] | None = None,
) -> Spent:
    """Train until another step would take more than the evaluations that are left.

    Args:
        model: Trained in place; in evaluation mode afterwards.
        data: Training episodes.
        optimizer: Of the model.
        evaluations: Gradients that may be computed.
        seed: Determines the batches: method after method sees the same.
        points: Numbers of evaluations at which ``at_point`` is called, in increasing order.
        at_point: Called once as many evaluations are spent, in evaluation mode; it may measure,
            and draw random numbers, without a trace on the training.

    Returns:
        What it took.

    Raises:
        DivergedError: If a loss or gradient is not finite.
    """
    rng = np.random.default_rng([seed, 1])
    updates = spent = cost = 0
    waiting = list(points)
    model.train()
    while spent + max(cost, 1) <= evaluations:
        check_interrupt()
        subsequences = data.draw(model.batch_size, model.sequence_length, rng=rng)
        targets = model.targets(subsequences)
        calls = 0

        def loss_of() -> Tensor:
            nonlocal calls
            calls += 1
            return model.loss(subsequences, targets)  # noqa: B023 - called before the next draw

        take_step(optimizer, loss_of, step=updates)
        updates, spent, cost = updates + 1, spent + calls, calls
        while at_point is not None and waiting and spent + cost > waiting[0]:
            model.train(False)
            with restored_rng():
                at_point(waiting.pop(0))
            model.train()
    model.train(False)
    return Spent(updates=updates, evaluations=spent)


def loss_on(model: OfflineModel, subsequences: Subsequences) -> float:
    """The loss on subsequences, with the targets of the model as it is."""
    with torch.no_grad():
        return float(model.loss(subsequences, model.targets(subsequences)))


def sharpness_on(
    model: OfflineModel, subsequences: Subsequences, *, scale_invariant: bool = False
) -> dict[str, float]:
    """Largest Hessian eigenvalue of the loss on subsequences, with targets held fixed, and more.

    Args:
        model: In evaluation mode.
        subsequences: A batch; compare only what was measured at equal size.
        scale_invariant: Measure ``module_scaled_lambda`` and ``adaptive_sharpness`` as well.

    Returns:
        ``lambda_max``, ``scaled_lambda`` (times the squared norm of the weights, which does not
        change when the weights before a normalisation grow), ``sam_gap``, ``grad_norm`` and
        ``param_norm``; ``module_scaled_lambda``, the same with the weights of every module over
        their norm; ``adaptive_sharpness``, the gap that one step of ASAM sees.
    """
    targets = model.targets(subsequences)
    modules = {
        name: [p for p in module.parameters() if p.requires_grad]
        for name, module in model.trained_modules().items()
    }
    subject = ProbeLoss(loss=lambda: model.loss(subsequences, targets), modules=modules)
    (region,) = loss_regions(subject, per_module=False)
    lambda_max = top_eigenvalue(region.product, region.gradient)
    size = norms(region, rho=RHO)
    extra: dict[str, float] = {}
    if scale_invariant:
        sizes = [torch.cat([p.detach().flatten() for p in params]) for params in modules.values()]
        scale = torch.cat([weights.norm().expand(len(weights)) for weights in sizes])
        extra["module_scaled_lambda"] = top_eigenvalue(
            lambda v: scale * region.product(scale * v), region.gradient
        )
        extra["adaptive_sharpness"] = adaptive_sharpness(region, rho=RHO, eta=0.01)
    return {
        "lambda_max": lambda_max,
        "scaled_lambda": lambda_max * size["param_norm"] ** 2,
        "sam_gap": sam_gap(region, rho=RHO),
        "grad_norm": size["grad_norm"],
        "param_norm": size["param_norm"],
        **extra,
    }
