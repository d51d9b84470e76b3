"""What the published runs did differently, each against its closed form, and who asks for it."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.agents.actor_critic import ActorCritic, ActorCriticConfig
from mbrl_flat.agents.actors import CategoricalActor
from mbrl_flat.agents.imagination import Imagined
from mbrl_flat.agents.storm.tokens import Tokens
from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.twister.views import resized_crops, torchvision_boxes
from mbrl_flat.cli.main import compose_run
from mbrl_flat.data.batch import Batch
from mbrl_flat.models.functional import SymexpTwoHot, percentile
from mbrl_flat.optim.with_base import PlainOptimizer
from mbrl_flat.planning.mppi import MPPIConfig
from mbrl_flat.runtime.device import use_tf32
from mbrl_flat.specs import TASK, Continuous, Discrete, EnvSpec, TaskSpec

CPU = torch.device("cpu")
ADAM = partial(PlainOptimizer, base=partial(torch.optim.Adam, lr=3e-2))
IMAGES = EnvSpec(
    obs={"rgb": (3, 16, 16)},
    action=Discrete(num=3),
    episode_length=20,
    images=frozenset({"rgb"}),
)


@pytest.mark.parametrize("num", [1, 7, 100])
@pytest.mark.parametrize("percent", [5.0, 95.0])
def test_a_percentile_by_rank_is_a_kth_value(num, percent):
    x = torch.randn(num, generator=torch.Generator().manual_seed(num))
    rank = min(int(percent / 100.0 * num) + 1, num)
    assert percentile(x.sort().values, percent, kth=True) == x.kthvalue(rank).values


def test_later_weights_begin_at_the_first_continuation():
    """TWISTER's code: w_t = gamma^t prod_{s <= t} c_s; DreamerV3's has one gamma more."""
    cont = torch.rand(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    zeros = torch.zeros(4, 5)
    imagined = Imagined(torch.zeros(4, 6, 3), torch.zeros(4, 5, 2), zeros, cont)
    weights = {}
    for weighting in ("discounted", "discounted_later"):
        config = ActorCriticConfig(discount=0.997, weighting=weighting)
        bins = SymexpTwoHot(num_bins=5, limit=2.0)
        actor = CategoricalActor(2, partial(nn.Linear, 3))
        weights[weighting] = ActorCritic(actor, nn.Linear(3, 5), bins, config)._weight(imagined)
    powers = 0.997 ** torch.arange(5, dtype=torch.float64)
    expected = powers * cont[:, :5].cumprod(1)
    torch.testing.assert_close(weights["discounted_later"], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights["discounted"], 0.997 * expected, rtol=1e-12, atol=1e-12)


def drawn_by_torchvision(u, size, min_area):
    """``RandomResizedCrop.get_params`` in plain numbers, from uniforms ``[tries, 4]``."""
    for first, second, third, fourth in u.tolist():
        area = size * size * (min_area + (1.0 - min_area) * first)
        ratio = math.exp((2.0 * second - 1.0) * math.log(4.0 / 3.0))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= size and 0 < height <= size:
            left = math.floor(third * (size - width + 1))
            top = math.floor(fourth * (size - height + 1))
            return left, top, width, height
    return 0, 0, size, size


@pytest.mark.parametrize("min_area", [0.25, 0.9])
def test_crops_of_whole_pixels_are_drawn_as_torchvision_draws_them(min_area):
    size, num, tries = 16, 300, 3
    torch.manual_seed(4)
    boxes = torchvision_boxes(num, size=size, min_area=min_area, tries=tries, device=CPU)
    torch.manual_seed(4)
    u = torch.rand(num, tries, 4)
    expected = []
    for row in u:
        left, top, width, height = drawn_by_torchvision(row, size, min_area)
        centre = (2 * left + width) / size - 1.0, (2 * top + height) / size - 1.0
        expected.append((*centre, width / size, height / size))
    torch.testing.assert_close(boxes, torch.tensor(expected), rtol=0.0, atol=1e-6)
    if min_area == 0.9:
        assert (boxes[:, 2:] == 1.0).all(1).any(), "some draws do not fit"


def test_a_crop_of_the_whole_image_is_the_image():
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, -1)
    torch.testing.assert_close(resized_crops(images, whole), images, rtol=0.0, atol=1e-6)


def test_the_actor_of_dreamerv3_mixes_nothing_in_where_the_published_one_does_not():
    for words, mix in (((), 0.01), (("agent.config.actor_unimix=0",), 0.0)):
        _, parts = compose_run("agent=dreamerv3", "preset=debug", *words)
        agent = parts.agent(IMAGES, optimizer=ADAM, device=CPU, compile=False)
        assert agent.actor_critic.actor.mix == mix
        assert agent.model.config.unimix == 0.01


@pytest.mark.parametrize("count", [1, 2, 4])
def test_left_aligned_tokens_are_processed_as_if_there_were_no_others(count):
    _, parts = compose_run("agent=storm", "preset=debug", "agent.config.act_context=4")
    agent = parts.agent(IMAGES, optimizer=ADAM, device=CPU, compile=False)
    dynamics, size = agent.model.dynamics, agent.model.shape.size
    g = torch.Generator().manual_seed(0)
    latent, action = torch.rand(2, 4, size, generator=g), torch.rand(2, 4, 3, generator=g)
    valid = torch.arange(4).expand(2, -1) >= 4 - count
    moved, last = Tokens(latent, action, valid).left_aligned()
    assert last.tolist() == [count - 1, count - 1]

    hidden, _ = dynamics.sequence(moved.latent, moved.action, moved.mask())
    own = Tokens(latent[:, -count:], action[:, -count:], valid[:, -count:])
    alone, _ = dynamics.sequence(own.latent, own.action, own.mask())

    torch.testing.assert_close(hidden[:, count - 1], alone[:, -1], rtol=1e-5, atol=1e-6)


def test_an_agent_that_aligns_left_acts_as_one_whose_memory_is_full():
    actions = []
    for align in ("left", "right"):
        words = ("agent.config.act_context=3", f"agent.config.act_align={align}")
        _, parts = compose_run("agent=storm", "preset=debug", *words)
        torch.manual_seed(0)
        agent = parts.agent(IMAGES, optimizer=ADAM, device=CPU, compile=False)
        state, g = agent.initial_state(2), torch.Generator().manual_seed(1)
        hidden = []
        for step in range(4):
            image = torch.full((2, 3, 16, 16), 40 * step, dtype=torch.uint8)
            _, state = agent.act({"rgb": image}, state, mode="eval", generator=g)
            hidden.append(state["hidden"])
        actions.append(torch.stack(hidden))
    left, right = actions
    assert not torch.allclose(left[0], right[0]), "one token has another position"


def test_the_policy_of_several_tasks_learns_on_their_embeddings_after_the_step():
    tasks = (
        TaskSpec(name="a", obs_size=2, action_size=1, episode_length=25),
        TaskSpec(name="b", obs_size=2, action_size=1, episode_length=25),
    )
    spec = EnvSpec(
        obs={"state": (2,), TASK: (1,)}, action=Continuous(dim=1), episode_length=25, tasks=tasks
    )
    planner = MPPIConfig(num_samples=12, num_prior=4, num_elites=4, iterations=2)
    config = TDMPC2Config(size="debug", task_dim=3, batch_size=4, planner=planner)
    torch.manual_seed(0)
    agent = TDMPC2(spec, config=config, optimizer=ADAM, device=CPU)
    with torch.no_grad():
        for parameter in agent.model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    g = torch.Generator().manual_seed(0)
    index = torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None, None].expand(-1, 4, 1)
    batch = Batch(
        obs={"state": torch.randn(4, 4, 2, generator=g), TASK: index.clone()},
        action=torch.rand(4, 3, 1, generator=g),
        reward=torch.randn(4, 3, generator=g),
        terminated=torch.zeros(4, 3),
    )
    before = agent.model.tasks.embedding.weight.clone()
    seen = []
    agent.policy.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))

    agent.update(batch)

    after = agent.model.tasks.embedding.weight
    assert not torch.equal(before, after)
    size = agent.latent_size
    for row, task in enumerate((0, 1, 0, 1)):
        assert torch.equal(seen[-1][row, :, size : size + 3], after[task].expand(4, -1))


def test_tf32_is_a_setting_of_the_run():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for wanted in (True, False):
            use_tf32(wanted)
            assert torch.backends.cuda.matmul.allow_tf32 is wanted
            assert torch.backends.cudnn.allow_tf32 is wanted
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


PUBLISHED = {
    "storm_published": {
        "steps": 102_000, "eval_episodes": 20, "env.sticky": 0.25, "env.noop_max": 0,
        "env.life_loss": "terminate", "agent.config.act_on": "prediction",
        "agent.config.act_align": "left", "agent.config.imagination.precision": "bfloat16",
        "agent.config.actor_critic.percentiles": "kth", "model_lr": 1e-4,
    },
    "twister_published": {
        "eval_episodes": 100, "agent.config.crop": "torchvision", "model_lr": 1e-4,
        "agent.config.actor_critic.weighting": "discounted_later",
    },
    "dreamerv3_published": {
        "env.noop_min": 0, "agent.config.actor_unimix": 0.0, "steps": 110_000,
        "updates_per_step": 0.25, "agent.config.imagination.precision": "bfloat16",
    },
    "dreamerv3_dmc_published": {
        "num_envs": 16, "env.action_repeat": 1, "updates_per_step": 1.0, "agent.config.size": "1M",
    },
    "tdmpc2_published": {
        "tf32": True, "compile": True, "heldout_fraction": 0.0,
        "agent.config.q_init": "kaiming_uniform",
    },
    "humanoid_bench_published": {
        "agent.config.mask_terminated": False, "agent.config.q_init": "kaiming_uniform",
    },
    "mujoco_published": {
        "agent.config.temporal_decay": 0.7, "agent.config.discount_max": 0.99,
    },
}  # fmt: skip


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_the_published_recipes_set_what_the_published_runs_had(experiment):
    config, _ = compose_run(f"experiment={experiment}")
    for key, expected in PUBLISHED[experiment].items():
        first, *rest = key.split(".")
        value = getattr(config, first)
        for name in rest:
            value = value[name]
        assert value == expected, key


def test_no_ops_may_be_none():
    atari = pytest.importorskip("mbrl_flat.envs.atari")
    pytest.importorskip("ale_py")
    env = atari.make("pong", seed=0, noop_max=1, noop_min=0, size=16).unwrapped
    starts = set()
    for _ in range(12):
        env.reset()
        starts.add(env._ale.getEpisodeFrameNumber())
    assert starts == {0, 1}
