"""Two processes, each with half the rows, learn what one learns from the whole batch.

In float64, with dropout, sampled actions and random shifts: what is left is the rounding of sums
that are taken in another order. After ten updates all weights, targets and optimizer states agree
to 1e-10; those of DreamerV3 to 1e-5, since LaProp divides by the size of gradients that begin near
zero.
"""

import datetime
import socket
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.multiprocessing as mp

from mbrl_flat.cli import main as cli
from mbrl_flat.data.batch import Batch
from mbrl_flat.distributed.processes import Processes
from mbrl_flat.distributed.split_update import SplitUpdate, follow
from mbrl_flat.errors import UserError
from mbrl_flat.runs.parts import build_agent
from mbrl_flat.specs import Continuous, Discrete, EnvSpec

CPU = torch.device("cpu")
VECTOR = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=50)
IMAGE = EnvSpec(
    obs={"image": (9, 64, 64)},
    action=Continuous(dim=2),
    episode_length=50,
    images=frozenset({"image"}),
)
UPDATES = 10
CASES = {
    "adam": (VECTOR, ["optimizer=adam"]),
    "sam": (VECTOR, ["optimizer=sam", "optimizer.rho=0.1"]),
    "sam on one module": (VECTOR, ["optimizer=sam", "optimizer.only=[dynamics]"]),
    "msam": (VECTOR, ["optimizer=msam", "optimizer.rho=0.1"]),
    "vasso": (VECTOR, ["optimizer=vasso", "optimizer.rho=0.1"]),
    "looksam": (VECTOR, ["optimizer=looksam"]),
    "random direction": (VECTOR, ["optimizer=random_direction", "optimizer.rho=0.1"]),
    "ivon": (VECTOR, ["optimizer=ivon"]),
    "vgd": (VECTOR, ["optimizer=vgd"]),
    "terminations": (VECTOR, ["optimizer=sam", "agent.config.episodic=true"]),
    "pixels": (IMAGE, ["optimizer=sam", "agent.config.batch_size=4"]),
    "dreamerv3": (VECTOR, ["agent=dreamerv3", "optimizer=sam", "optimizer.rho=0.1"]),
}
LOCAL = {"adam", "sam", "vasso"}


def build(case, sync):
    spec, overrides = CASES[case]
    config, parts = cli.compose_run("env=dummy", "preset=debug", "model_lr=0.003", *overrides)
    return build_agent(config, parts, spec, CPU, sync=sync)


def batches(agent, spec):
    generator = torch.Generator().manual_seed(0)
    rows, length = agent.batch_size, agent.sequence_length
    draw = partial(torch.randn, generator=generator)
    for _ in range(UPDATES):
        obs = {
            name: (100.0 * draw(rows, length + 1, *shape)).abs().to(torch.uint8)
            if name in spec.images
            else draw(rows, length + 1, *shape)
            for name, shape in spec.obs.items()
        }
        first = draw(rows, length + 1) > 1.0 if agent.across_episodes else None
        yield Batch(
            obs=obs,
            action=draw(rows, length, 2).clamp(-1.0, 1.0),
            reward=3.0 * draw(rows, length),
            terminated=(draw(rows, length) > 1.0).double(),
            is_first=first,
        )


def weights(agent):
    """All numbers of the agent's state, flat, by name."""
    found = {}

    def walk(name, value):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            found[name] = value.detach().clone()
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(f"{name}/{key}", item)

    walk("", agent.state_dict())
    return found


def learn(case, update, agent):
    torch.manual_seed(3)
    return [update(batch) for batch in batches(agent, CASES[case][0])]


def work(rank, port, cases, results):
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=100),
    )
    processes = Processes(rank=rank, count=2)
    for case, sync in cases:
        if rank == 0:
            agent = build(case, sync)
            # The state goes to the other process with the first update, whatever that began with.
            with torch.no_grad():
                next(iter(agent.state_dict()["model"].values())).add_(0.01)
            metrics = learn(case, SplitUpdate(agent, CASES[case][0], processes, CPU), agent)
            processes.send(None)
            results[case, sync] = (weights(agent), metrics)
        else:
            built = []

            def make(spec, case=case, sync=sync, built=built):
                built.append(build(case, sync))
                return built[0]

            follow(make, processes, CPU)
            results[case, sync, "follower"] = weights(built[0])
    torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def results():
    cases = [(case, "global") for case in CASES] + [(case, "local") for case in sorted(LOCAL)]
    shared = mp.Manager().dict()
    mp.spawn(work, args=(free_port(), cases, shared), nprocs=2, join=True)
    return dict(shared)


@pytest.fixture
def alone():
    def run(case):
        torch.set_default_dtype(torch.float64)
        try:
            agent = build(case, "none")
            with torch.no_grad():
                next(iter(agent.state_dict()["model"].values())).add_(0.01)
            return learn(case, agent.update, agent), weights(agent)
        finally:
            torch.set_default_dtype(torch.float32)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_weights_are_those_of_one_process_with_the_whole_batch(results, alone, case):
    expected_metrics, expected = alone(case)
    tolerance = 1e-5 if case == "dreamerv3" else 1e-10
    ended, metrics = results[case, "global"]

    assert ended.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ended[name], value, rtol=tolerance, atol=tolerance, msg=name)
    for ours, theirs in zip(metrics, expected_metrics, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert float(ours[name]) == pytest.approx(float(value), rel=1e-8, abs=1e-8), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "sync"), [*((c, "global") for c in CASES), *((c, "local") for c in sorted(LOCAL))]
)
def test_the_processes_never_differ_in_a_bit(results, case, sync):
    """But for what a method with ``sync=local`` remembers of its own displacements."""
    leader, follower = results[case, sync][0], results[case, sync, "follower"]

    assert leader.keys() == follower.keys()
    for name in leader:
        if sync == "global" or not name.startswith("/optimizer/perturbation"):
            assert torch.equal(leader[name], follower[name]), name


@pytest.mark.slow
def test_displacements_of_their_own_change_what_is_learned_and_plain_steps_do_not(results):
    def distance(case):
        pair = [results[case, sync][0] for sync in ("global", "local")]
        return max(float((pair[0][name] - pair[1][name]).abs().max()) for name in pair[0])

    assert distance("adam") < 1e-10
    assert distance("sam") > 1e-4


@pytest.mark.parametrize(
    ("agent", "sentence"), [("storm", "BatchNorm and the free nats"), ("twister", "contrastive")]
)
def test_agents_whose_loss_ties_rows_together_are_refused(agent, sentence):
    spec = replace(IMAGE, obs={"image": (3, 64, 64)}, action=Discrete(num=4))
    config, parts = cli.compose_run(f"agent={agent}", "env=dummy", "preset=debug")
    agent = build_agent(config, parts, spec, CPU)

    with pytest.raises(UserError, match=sentence):
        SplitUpdate(agent, spec, Processes(rank=0, count=2), CPU)


def test_a_batch_that_does_not_divide_is_refused():
    config, parts = cli.compose_run("env=dummy", "preset=debug", "agent.config.batch_size=9")
    agent = build_agent(config, parts, VECTOR, CPU)

    with pytest.raises(UserError, match="batch_size=9 cannot be split into 2 equal parts"):
        SplitUpdate(agent, VECTOR, Processes(rank=0, count=2), CPU)
