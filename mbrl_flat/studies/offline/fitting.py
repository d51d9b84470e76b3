"""Train a world model on recorded transitions until a number of gradient evaluations is spent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.diagnostics.lanczos import lanczos, start_vector
from mbrl_flat.diagnostics.perturbed_sharpness import adaptive_sharpness
from mbrl_flat.diagnostics.sharpness import loss_regions, norms, sam_gap
from mbrl_flat.errors import DivergedError, NonFiniteError
from mbrl_flat.interfaces import ProbeLoss
from mbrl_flat.optim import OPTIMIZERS, FlatOptimizer, make_optimizer, module_groups
from mbrl_flat.runtime.interrupts import check_interrupt
from mbrl_flat.runtime.seeding import restored_rng
from mbrl_flat.studies.offline.offline_model import OfflineModel
from mbrl_flat.studies.offline.transitions import Subsequences, Transitions
from mbrl_flat.studies.training import closure_of


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
        model: Whose weights.
        name: Method.
        lr: Learning rate.
        rho: Radius; 0 for a method that has none.
        settings: Further settings of the method.

    Returns:
        The optimizer, with the model's own bound on the gradient.
    """
    groups = module_groups(model.trained_modules(), lr_scales=model.lr_scales)
    chosen: dict[str, Any] = {"max_grad_norm": model.max_grad_norm, **(settings or {})}
    if OPTIMIZERS[name].has_base:
        return make_optimizer(name, groups, base="adam", lr=lr, rho=rho, **chosen)
    return make_optimizer(name, groups, **{"lr": lr, **chosen})


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

        try:
            optimizer.step(closure_of(optimizer, loss_of))
        except NonFiniteError as error:
            raise DivergedError(updates, str(error)) from error
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
    model: OfflineModel,
    subsequences: Subsequences,
    *,
    rho: float = 0.05,
    iterations: int = 20,
    scale_invariant: bool = False,
) -> dict[str, float]:
    """Largest Hessian eigenvalue of the loss on subsequences, with targets held fixed, and more.

    Args:
        model: In evaluation mode.
        subsequences: A batch; compare only what was measured at equal size.
        rho: Radius of ``sam_gap``.
        iterations: Most iterations of Lanczos.
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
    generator = torch.Generator().manual_seed(0)
    start = start_vector(region.gradient.numel(), generator=generator).to(region.gradient)
    found = lanczos(region.product, start, max_iterations=iterations, tolerance=1e-2)
    size = norms(region, rho=rho)
    extra: dict[str, float] = {}
    if scale_invariant:
        sizes = [torch.cat([p.detach().flatten() for p in params]) for params in modules.values()]
        scale = torch.cat([weights.norm().expand(len(weights)) for weights in sizes])
        scaled = lanczos(
            lambda v: scale * region.product(scale * v),
            start,
            max_iterations=iterations,
            tolerance=1e-2,
        )
        extra["module_scaled_lambda"] = scaled.lambda_max
        extra["adaptive_sharpness"] = adaptive_sharpness(region, rho=rho, eta=0.01)
    return {
        "lambda_max": found.lambda_max,
        "scaled_lambda": found.lambda_max * size["param_norm"] ** 2,
        "sam_gap": sam_gap(region, rho=rho),
        "grad_norm": size["grad_norm"],
        "param_norm": size["param_norm"],
        **extra,
    }
