"""What the probes cost: the largest eigenvalue against a library, and their share of a run.

TD-MPC2 at the published 1M size, batch 256, horizon 3, float32, after some updates on random
episodes. CPU time of one thread; what is compared takes turns in one process.

* ``lambda_max`` to 0.2% of its converged value: the least Lanczos iterations that reach it, here
  and in ``scipy``'s ``eigsh`` on the Hessian of ``curvlinops``, which rebuilds the graph for every
  product.
* All training-time probes at their default interval, as a share of the time of the updates and
  plans between two of them.

    python scripts/bench_probes.py --json bench_probes.json
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.hvp import Hessian
from mbrl_flat.diagnostics.lanczos import lanczos, start_vector
from mbrl_flat.diagnostics.rollout_probe import RolloutProbe
from mbrl_flat.diagnostics.sharpness import loss_regions
from mbrl_flat.diagnostics.sharpness_measures import CategoricalGaussNewton, Context
from mbrl_flat.diagnostics.sharpness_probe import SharpnessProbe
from mbrl_flat.models import ensemble, mlp
from mbrl_flat.optim import Adam
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runtime.seeding import seed_everything
from mbrl_flat.specs import Continuous, EnvSpec

SPEC = EnvSpec(obs={"state": (24,)}, action=Continuous(dim=6), episode_length=500, action_repeat=2)
ACCURACY = 2e-3


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    torch.set_num_threads(1)
    seed_everything(0)
    replay = _filled_replay()
    factory = partial(Adam, lr=3e-4)
    config = TDMPC2Config(size=arguments.size)
    agent = TDMPC2(SPEC, config=config, optimizer=factory, device=torch.device("cpu"))
    rng = np.random.default_rng(0)
    for _ in range(arguments.updates):
        agent.update(replay.sample(256, 3, rng=rng))
    rows = _eigenvalue(agent, replay, arguments.rounds) + _share(agent, replay, arguments.rounds)
    for row in rows:
        row |= {"threads": 1, "device": "cpu", "size": arguments.size}
        print(f"{row['name']:44} {row['median_ms']:10.0f} ms  {row.get('relation', '')}")
    report = {"rows": rows, "torch": torch.__version__, "load_average": os.getloadavg()[0]}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", default="1")
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default=None)
    return parser.parse_args()


def _filled_replay() -> Replay:
    rng, replay = np.random.default_rng(0), Replay(SPEC, 10_000, heldout_fraction=0.05, seed=0)
    for _ in range(10):
        state = rng.normal(size=24).astype(np.float32)
        replay.begin(0, {"state": state})
        for step in range(500):
            action = rng.uniform(-1.0, 1.0, 6).astype(np.float32)
            state = (0.95 * state + 0.3 * rng.normal(size=24)).astype(np.float32)
            reward = float(np.tanh(state[:6] @ action))
            end = step == 499
            replay.add(0, action, reward, {"state": state}, terminated=False, done=end)
    return replay


def _eigenvalue(agent: TDMPC2, replay: Replay, rounds: int) -> list[dict[str, Any]]:
    batch = replay.sample(256, 3, rng=np.random.default_rng(1))
    probed = agent.probe_loss(batch)
    params = [p for module in probed.modules.values() for p in module]
    size = sum(p.numel() for p in params)
    start = start_vector(size, generator=torch.Generator().manual_seed(0))
    exact = lanczos(Hessian(probed.loss, params), start, max_iterations=40, tolerance=1e-3)

    def ours(iterations: int) -> float:
        hessian = Hessian(probed.loss, params)
        return lanczos(hessian, start, max_iterations=iterations, tolerance=0.0).lambda_max

    theirs = _Library(agent, batch, params, start.numpy())
    needed = {
        "ours": _least(ours, exact.lambda_max, range(4, 40)),
        "curvlinops": _least(theirs, exact.lambda_max, range(1, 10)),
    }
    cpu: dict[str, list[float]] = {"ours": [], "curvlinops": []}
    value: dict[str, float] = {}
    for _ in range(rounds):
        for name, task in (("ours", ours), ("curvlinops", theirs)):
            start_cpu = time.process_time()
            value[name] = task(needed[name])
            cpu[name].append(1e3 * (time.process_time() - start_cpu))
    mine, other = (statistics.median(cpu[name]) for name in ("ours", "curvlinops"))
    return [
        {
            "name": "lambda_max, Lanczos on a kept graph",
            "median_ms": mine,
            "products": needed["ours"],
            "value": value["ours"],
            "converged": exact.lambda_max,
            "relative_to": "curvlinops with eigsh",
            "ratio": other / mine,
            "relation": f"{needed['ours']} products, {other / mine:.1f} times as fast",
        },
        {
            "name": "lambda_max, curvlinops with eigsh",
            "median_ms": other,
            "products": theirs.products,
            "value": value["curvlinops"],
            "relation": f"{theirs.products} products, {needed['curvlinops']} restarts",
        },
    ]


def _least(task: Callable[[int], float], exact: float, counts: range) -> int:
    """Smallest number of iterations that comes within the accuracy."""
    for count in counts:
        if abs(task(count) - exact) <= ACCURACY * abs(exact):
            return count
    return counts[-1]


class _Library:
    """``eigsh`` on the Hessian of curvlinops, restarted up to a number of times.

    It differentiates forward over reverse, which torch has not for this project's Mish nor rightly
    for the weight of a layer norm: both are replaced by their formulas while it runs.
    """

    def __init__(
        self, agent: TDMPC2, batch: Any, params: list[nn.Parameter], start: np.ndarray
    ) -> None:
        import curvlinops  # noqa: PLC0415  # a test extra

        model, targets = agent.model, agent.model.targets(batch, agent.policy)

        class Loss(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, _: Tensor) -> Tensor:
                return self.model.loss(batch, targets).loss

        dummy = torch.zeros(1, 1)
        self.operator = curvlinops.HessianLinearOperator(
            Loss(), _Identity(), params, [(dummy, dummy)], check_deterministic=False
        )
        self.start, self.products = start, 0

    def __call__(self, restarts: int) -> float:
        from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh  # noqa: PLC0415

        self.products = 0
        scipy_operator = self.operator.to_scipy()

        def product(vector: np.ndarray) -> np.ndarray:
            self.products += 1
            return scipy_operator @ vector

        counted = LinearOperator(scipy_operator.shape, matvec=product, dtype=np.float32)
        with _textbook():
            try:
                found = eigsh(
                    counted, k=1, which="LA", v0=self.start, tol=ACCURACY, maxiter=restarts,
                    return_eigenvectors=False,
                )  # fmt: skip
            except ArpackNoConvergence:
                return float("nan")
        return float(found[0])


class _Identity(nn.Module):
    reduction = "mean"

    def forward(self, prediction: Tensor, _: Tensor) -> Tensor:
        return prediction


@contextmanager
def _textbook() -> Iterator[None]:
    """Mish and LayerNorm as their formulas, of which every derivative is known."""

    def layer_norm(
        x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float = 1e-5
    ) -> Tensor:
        del shape
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
        return scaled if weight is None else scaled * weight + (0.0 if bias is None else bias)

    def mish(x: Tensor) -> Tensor:
        return x * torch.tanh(F.softplus(x))

    with ExitStack() as stack:
        for module in (mlp, ensemble):
            stack.enter_context(mock.patch.object(module, "mish", mish))
        stack.enter_context(mock.patch.object(F, "layer_norm", layer_norm))
        yield


def _share(agent: TDMPC2, replay: Replay, rounds: int) -> list[dict[str, Any]]:
    """The scheduled probe against what happens between two of its occasions."""
    run = RunConfig()
    probe, rollout = SharpnessProbe(), RolloutProbe()
    generator = torch.Generator().manual_seed(0)
    obs = {"state": torch.randn(1, 24)}
    state = agent.initial_state(1)
    batch = replay.sample(256, 3, rng=np.random.default_rng(2))
    probed = agent.probe_loss(batch)
    (whole,) = loss_regions(probed, per_module=False)
    context = Context(generator=generator, categorical=probed.categorical)
    tasks: dict[str, Callable[[], object]] = {
        "probe, sharpness": lambda: probe(agent, replay),
        "gauss_newton of all weights": lambda: CategoricalGaussNewton()(whole, context),
        "probe, rollout_error": lambda: rollout(agent, replay),
        "update": lambda: agent.update(batch),
        "act": lambda: agent.act(obs, state, mode="explore", generator=generator),
    }
    cpu: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            spent = _cpu_ms(task)
            if number > 0:
                cpu[name].append(spent)
    median = {name: statistics.median(values) for name, values in cpu.items()}
    steps = run.probe_every
    between = steps * (run.updates_per_step * median["update"] + median["act"])
    share = median["probe, sharpness"] / between
    rows: list[dict[str, Any]] = [
        {"name": name, "median_ms": value} for name, value in median.items()
    ]
    rows[0] |= {
        "relative_to": f"{steps} updates and plans",
        "ratio": share,
        "relation": f"{100 * share:.3f}% of the run at probe_every={steps}",
    }
    return rows


def _cpu_ms(task: Callable[[], object]) -> float:
    start = time.process_time()
    task()
    return 1e3 * (time.process_time() - start)


if __name__ == "__main__":
    main()
