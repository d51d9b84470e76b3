"""Two processes: one perturbation for all (global), one for each (local), replicas never apart."""

import datetime
import socket
from functools import partial

import pytest
import torch
import torch.multiprocessing as mp

from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS, make_optimizer

LR, RHO, STEPS = 0.1, 0.3, 3
SLOPES = torch.tensor([[3.0, 1.0], [-1.0, 2.0]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0], dtype=torch.float64)


def train(name, sync, shards, **settings):
    """Weights, losses and perturbed weights of a few steps on the mean of ``(a_i . w)^2 / 2``."""
    param = torch.nn.Parameter(START.clone())
    points = []

    def part(slope):
        def closure():
            param.grad = None
            points.append(param.detach().tolist())
            loss = 0.5 * (slope @ param) ** 2
            loss.backward()
            return loss.detach()

        return closure

    torch.manual_seed(0)
    base = partial(torch.optim.SGD, lr=LR, momentum=0.9)
    optimizer = make_optimizer(name, [param], base=base, sync=sync, **settings)
    losses = [float(optimizer.step([part(slope) for slope in shards])) for _ in range(STEPS)]
    return param.detach(), losses, points


class Product(torch.nn.Module):
    """The same loss as a module, to be wrapped."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(START.clone())

    def forward(self, slope):
        return 0.5 * (slope @ self.weight) ** 2


def train_wrapped(name, slope, *, buckets=False):
    """Weights of the steps of ``train`` with DistributedDataParallel, which averages gradients."""
    model = torch.nn.parallel.DistributedDataParallel(Product(), gradient_as_bucket_view=buckets)
    weight = model.module.weight

    def closure():
        optimizer.zero_grad()
        loss = model(slope)
        loss.backward()
        return loss.detach()

    torch.manual_seed(0)
    settings = {"rho": RHO} if "rho" in OPTIMIZERS[name].settings else {}
    if name == "vgd":
        settings = {"sigma": RHO, "num_samples": 3}
    if OPTIMIZERS[name].has_base:
        settings["base"] = partial(torch.optim.SGD, lr=LR, momentum=0.9)
    optimizer = make_optimizer(name, [weight], **settings)
    for _ in range(STEPS):
        optimizer.step(closure)
    return weight.tolist()


def train_on_streams(name, rank):
    """Weights of processes that were seeded apart."""
    param = torch.nn.Parameter(START.clone())
    torch.manual_seed(100 + rank)
    optimizer = make_optimizer(name, [param], ess=50.0, sync="global")

    def closure():
        param.grad = None
        loss = 0.5 * (SLOPES[rank] @ param) ** 2
        loss.backward()
        return loss.detach()

    for _ in range(STEPS):
        optimizer.step(closure)
    return param.detach().tolist()


def work(rank, port, cases, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    for name, sync in cases:
        if sync == "seeds":
            results[name, sync, rank] = train_on_streams(name, rank)
            continue
        if sync == "wrapped":
            results[name, sync, rank] = train_wrapped(name, SLOPES[rank])
            continue
        weights, losses, points = train(name, sync, [SLOPES[rank]], rho=RHO)
        results[name, sync, rank] = (weights.tolist(), losses, points)
    torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def work_in_parallel(rank, port, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=120),
    )
    weights, losses, points = train("sampa", "none", SLOPES[:1], rho=RHO, parallel=True)
    results[rank] = (weights.tolist(), losses, len(points))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_sampa_on_two_processes_makes_the_steps_of_one_with_half_the_evaluations():
    results = mp.Manager().dict()

    mp.spawn(work_in_parallel, args=(free_port(), results), nprocs=2, join=True)

    weights, losses, points = train("sampa", "none", SLOPES[:1], rho=RHO)
    for rank in (0, 1):
        assert results[rank][0] == weights.tolist()
        assert results[rank][1] == losses
        # The first step evaluates at the weights as well, in both.
        assert results[rank][2] == (len(points) - 1) // 2 + 1


def test_sampa_in_parallel_is_for_two_processes():
    with pytest.raises(UserError, match="parallel=true is for 2 processes, and there are 1"):
        train("sampa", "none", SLOPES[:1], rho=RHO, parallel=True)


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one_that_has_both_shards():
    """Global is one large batch, local is m-sharpness with the shard of a process as m."""
    methods = ["sam", "asam", "random_direction", "gsam", "msam"]
    modes = ("global", "local", "wrapped")
    cases = [(name, sync) for name in methods for sync in modes] + [("ivon", "seeds")]
    results = mp.Manager().dict()

    mp.spawn(work, args=(free_port(), cases, results), nprocs=2, join=True)

    assert results["ivon", "seeds", 0] == results["ivon", "seeds", 1]
    for name in methods:
        check_perturbed_points(results, name)
        wrapped = [results[name, "wrapped", rank] for rank in (0, 1)]
        assert wrapped[0] == wrapped[1]
        assert wrapped[0] == pytest.approx(results[name, "global", 0][0])
        for sync in ("global", "local"):
            check_weights(results, name, sync)


def check_perturbed_points(results, name):
    """The same in both processes with ``global``, different ones with ``local``."""
    points = {
        key[1:]: value[2]
        for key, value in results.items()
        if key[:2] != (name, "wrapped") and key[0] == name
    }
    assert points["global", 0] == points["global", 1]
    if name not in {"msam", "random_direction"}:
        # The momentum, and the stream of directions, are the same in all processes.
        assert points["local", 0][1] != points["local", 1][1]
    assert points["local", 0][0] == points["local", 1][0]


def check_weights(results, name, sync):
    assert results[name, sync, 0][0] == results[name, sync, 1][0]
    if (name, sync) == ("random_direction", "local"):
        # One process draws twice, two draw once each: equal in law only.
        return
    one = "each" if sync == "local" else "replay"
    weights, losses, _ = train(name, "none", SLOPES, rho=RHO, micro_batches=one)
    for rank in (0, 1):
        ended = torch.tensor(results[name, sync, rank][0], dtype=torch.float64)
        torch.testing.assert_close(ended, weights)
        assert results[name, sync, rank][1] == pytest.approx(losses)


@pytest.mark.parametrize("name", ["ivon", "bsam", "wsam"])
def test_methods_that_learn_from_more_than_the_final_gradient_refuse_local(problem, make, name):
    with pytest.raises(UserError, match="sync=global"):
        make(name, problem.groups(), sync="local")


def test_another_meaning_of_sync_is_refused(problem, make):
    with pytest.raises(UserError, match="sync"):
        make("sam", problem.groups(), sync="nowhere")


@pytest.fixture
def alone(tmp_path):
    """A process group of one."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {"sam_on", "functional_sam"}))
def test_gradients_that_are_parts_of_buckets_are_kept_as_they_were(alone, name):
    """The reducer fills the buckets anew in the next evaluation of a step."""
    apart, within = (train_wrapped(name, SLOPES[0], buckets=buckets) for buckets in (False, True))

    assert within == apart


@pytest.mark.parametrize("sync", ["local", "global"])
def test_averaging_without_processes_is_refused(problem, make, sync):
    with pytest.raises(UserError, match="init_process_group, or leave sync=none"):
        make("sam", problem.groups(), sync=sync).step(problem.closure)
