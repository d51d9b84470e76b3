"""What a step costs: methods in turn on one network, as ratios of CPU time."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mbrl_flat.studies.experiments.methods import method_optimizer
from mbrl_flat.studies.experiments.task import NoisyDigits
from mbrl_flat.studies.training import build_base, closure_of, loss_function

_ROUNDS = 30
"""The median over them counts."""


def step_costs(task: NoisyDigits, methods: Mapping[str, float], *, seed: int) -> dict[str, float]:
    """Time a step of each method over one of the base, all in turn within every round.

    Machines slow down and speed up for reasons of their own; what shares a round shares them.

    Args:
        task: Network, data and base.
        methods: Radius of each method.
        seed: Determines weights and batch.

    Returns:
        ``cost_METHOD``: CPU time of a step relative to one of the base.
    """
    recipe = task.recipe()
    x, y = (part[: recipe.batch_size] for part in task.split(seed).train)
    loss_of = loss_function(recipe)
    steps: list[tuple[str, Callable[[], object]]] = []
    for method, rho in {"base": 0.0, **methods}.items():
        model = task.model(seed).train()
        optimizer = method_optimizer(method, model, base=build_base(recipe), rho=rho)
        optimizer.same_rng = False
        closure = closure_of(optimizer, lambda model=model: loss_of(model(x), y))
        steps.append((method, partial(optimizer.step, closure)))
    times: dict[str, list[float]] = {method: [] for method, _ in steps}
    for _ in range(_ROUNDS):
        for method, step in steps:
            start = time.process_time()
            step()
            times[method].append(time.process_time() - start)
    return {f"cost_{m}": _median_ratio(times[m], times["base"]) for m in methods}


def _median_ratio(times: Sequence[float], base: Sequence[float]) -> float:
    ratios = sorted(t / b for t, b in zip(times, base, strict=True) if b > 0.0)
    return ratios[len(ratios) // 2]
