"""Compiled TD-MPC2: what eager TD-MPC2 is, compiled once, under every optimizer's closures."""

import pytest
import torch
from torch._dynamo.utils import counters

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.data.batch import Batch
from mbrl_flat.optim import make_optimizer
from mbrl_flat.planning.mppi import MPPIConfig

pytestmark = [
    pytest.mark.slow,
    # The compiler's own: fixed in torch, not here.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

PLANNER = MPPIConfig(num_samples=16, num_prior=4, num_elites=4, iterations=2)
CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
WHERE = pytest.mark.parametrize(
    ("device", "graphs_too"),
    [
        ("cpu", False),
        pytest.param("cuda", False, marks=CUDA),
        pytest.param("cuda", True, marks=CUDA),
    ],
)


@pytest.fixture(scope="module", autouse=True)
def compile_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture
def make_agent(spec):
    def make(device, method="adam", *, compile=True, cuda_graphs=False, dropout=0.01, **settings):
        torch.manual_seed(0)
        config = TDMPC2Config(
            size="debug", batch_size=4, planner=PLANNER, dropout=dropout, cuda_graphs=cuda_graphs
        )

        def optimizer(groups, *, max_grad_norm=None):
            return make_optimizer(method, groups, max_grad_norm=max_grad_norm, lr=1e-3, **settings)

        return TDMPC2(
            spec, config=config, optimizer=optimizer, device=torch.device(device), compile=compile
        )

    return make


def batches(num, size=4):
    g = torch.Generator().manual_seed(0)
    for _ in range(num):
        yield Batch(
            obs={"state": torch.randn(size, 4, 3, generator=g)},
            action=2.0 * torch.rand(size, 3, 2, generator=g) - 1.0,
            reward=torch.randn(size, 3, generator=g),
            terminated=torch.zeros(size, 3),
        )


def act(agent, num):
    generator = torch.Generator(agent.device).manual_seed(0)
    obs = {"state": torch.linspace(-1.0, 1.0, 3 * num).view(num, 3)}
    state = agent.initial_state(num)
    return agent.act(obs, state, mode="explore", generator=generator)[0]


def weights(agent):
    return [p.detach().cpu() for p in [*agent.model.parameters(), *agent.policy.parameters()]]


def graphs():
    return counters["stats"]["unique_graphs"]


@WHERE
@pytest.mark.parametrize(
    "optimizer",
    [
        {"method": "sam", "only": ["encoder", "dynamics"], "every": 2},
        {"method": "esam", "beta": 0.5},
    ],
)
def test_nothing_is_compiled_after_the_first_hundred_updates(
    make_agent, device, graphs_too, optimizer, capsys
):
    """Two evaluations a step, one with frozen weights for SAM; one state to plan for, or three."""
    agent = make_agent(device, rho=0.05, cuda_graphs=graphs_too, **optimizer)

    def live(num):
        for batch in batches(num):
            agent.update(batch)
            act(agent, 1)
        act(agent, 3)

    live(100)
    before = graphs()
    live(100)

    said = capsys.readouterr().err
    assert before > 0
    assert graphs() == before
    assert said.count("compiling the loss") == said.count("compiling the planner") == 1


@WHERE
@pytest.mark.parametrize("method", ["adam", "sam"])
def test_compiled_updates_and_plans_are_the_eager_ones(make_agent, device, graphs_too, method):
    """No dropout, whose random numbers a compiler draws its own way."""
    settings = {"rho": 0.05} if method == "sam" else {}
    eager = make_agent(device, method, compile=False, dropout=0.0, **settings)
    compiled = make_agent(device, method, dropout=0.0, cuda_graphs=graphs_too, **settings)

    for batch in batches(3):
        torch.manual_seed(1)
        ours = eager.update(batch)
        torch.manual_seed(1)
        theirs = compiled.update(batch)
        for name, value in ours.items():
            assert float(theirs[name]) == pytest.approx(float(value), rel=2e-3, abs=1e-5), name

    for a, b in zip(weights(eager), weights(compiled), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)
    torch.testing.assert_close(act(eager, 2), act(compiled, 2), rtol=0, atol=1e-2)


@WHERE
def test_radius_zero_is_adam_bit_for_bit_in_compiled_code_with_dropout(
    make_agent, device, graphs_too
):
    """Every evaluation draws the same dropout, though the compiler draws it."""
    base = make_agent(device, "adam", cuda_graphs=graphs_too)
    zero = make_agent(device, "sam", rho=0.0, only=["dynamics"], cuda_graphs=graphs_too)

    for agent in (base, zero):
        torch.manual_seed(1)
        for batch in batches(20):
            agent.update(batch)

    assert all(torch.equal(a, b) for a, b in zip(weights(base), weights(zero), strict=True))
