"""TD-MPC2 from images."""

from functools import partial

import numpy as np
import pytest
import torch

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.data.batch import Batch
from mbrl_flat.errors import UserError
from mbrl_flat.models.random_shift import random_shift
from mbrl_flat.optim import make_optimizer
from mbrl_flat.planning.mppi import MPPIConfig
from mbrl_flat.specs import Continuous, EnvSpec

CPU = torch.device("cpu")
SPEC = EnvSpec(
    obs={"rgb": (9, 64, 64)},
    action=Continuous(dim=2),
    episode_length=50,
    images=frozenset({"rgb"}),
    frame_stack=3,
)
PLANNER = MPPIConfig(num_samples=16, num_prior=4, num_elites=4, iterations=2)


def make_agent(optimizer="adam", spec=SPEC, **settings):
    torch.manual_seed(0)
    config = TDMPC2Config(size="debug", batch_size=4, planner=PLANNER, **settings.pop("config", {}))

    def factory(groups, *, max_grad_norm):
        return make_optimizer(optimizer, groups, lr=1e-3, max_grad_norm=max_grad_norm, **settings)

    return TDMPC2(spec, config=config, optimizer=factory, device=CPU)


def make_batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    return Batch(
        obs={"rgb": torch.randint(256, (4, 4, 9, 64, 64), generator=g).to(torch.uint8)},
        action=2.0 * torch.rand(4, 3, 2, generator=g) - 1.0,
        reward=torch.rand(4, 3, generator=g),
        terminated=torch.zeros(4, 3),
    )


def weights(agent):
    return torch.cat([p.detach().flatten() for p in agent.model.parameters()])


def test_every_evaluation_of_a_step_sees_the_same_shifted_images(monkeypatch):
    agent = make_agent("sam", rho=0.05)
    seen = []
    loss = agent.model.loss
    monkeypatch.setattr(
        agent, "_loss", lambda batch, targets: seen.append(batch) or loss(batch, targets)
    )
    targets = agent.model.targets
    monkeypatch.setattr(
        agent.model, "targets", lambda batch, policy: seen.append(batch) or targets(batch, policy)
    )
    batch = make_batch()

    torch.manual_seed(3)
    agent.update(batch)

    torch.manual_seed(3)
    shifted = random_shift(batch.obs["rgb"], 3)
    assert len(seen) == 3
    assert all(torch.equal(one.obs["rgb"], shifted) for one in seen)


@pytest.mark.parametrize(("rho", "evaluations"), [(0.0, 1.0), (1e-30, 2.0)])
def test_sam_with_a_radius_that_moves_nothing_is_its_base_bit_for_bit(rho, evaluations):
    """With a radius above 0 the second evaluation sees the same images, targets and dropout."""
    plain, flat = make_agent("adam"), make_agent("sam", rho=rho)
    for step in range(3):
        for agent in (plain, flat):
            torch.manual_seed(step)
            row = agent.update(make_batch(step))
        assert (row["optim/evaluations"], float(row["optim/perturbed_gap"])) == (evaluations, 0.0)
    assert torch.equal(weights(plain), weights(flat))


def test_the_encoder_learns_and_can_be_selected_by_name():
    agent = make_agent("sam", rho=0.05, only=["encoder"])
    before = agent.model.encoder.layers[0].weight.detach().clone()
    metrics = agent.update(make_batch())
    assert float(metrics["optim/perturbation_norm"]) == pytest.approx(0.05, rel=1e-4)
    assert not torch.equal(agent.model.encoder.layers[0].weight, before)


def test_probes_see_the_images_as_they_are_and_draw_nothing():
    agent, batch = make_agent(), make_batch()
    before = torch.get_rng_state()
    first, second = (float(agent.probe_loss(batch).loss().detach()) for _ in range(2))
    assert first == second
    assert torch.equal(agent.posterior(batch), agent.model.encode(batch.obs))
    assert torch.equal(torch.get_rng_state(), before)


def test_actions_draw_their_shift_from_the_generator_alone():
    agent = make_agent()
    obs = {"rgb": make_batch().obs["rgb"][:, 0]}
    act = partial(agent.act, obs, agent.initial_state(4), mode="policy")
    before = torch.get_rng_state()
    first, _ = act(generator=torch.Generator().manual_seed(1))
    second, _ = act(generator=torch.Generator().manual_seed(1))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_augmentation_no_image_moves():
    agent = make_agent(config={"random_shift": 0})
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    obs = {"rgb": make_batch().obs["rgb"][:, 0]}
    agent.act(obs, agent.initial_state(4), mode="eval", generator=generator)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(UserError, match="random_shift must be at least 0, got -1"):
        TDMPC2Config(random_shift=-1)


def test_images_and_vectors_together_are_refused():
    spec = EnvSpec(
        obs={"rgb": (3, 64, 64), "state": (4,)},
        action=Continuous(dim=2),
        episode_length=50,
        images=frozenset({"rgb"}),
    )
    with pytest.raises(UserError, match=r"encodes vectors or one image; .* gives rgb, state"):
        make_agent(spec=spec)


def test_an_image_from_numpy_survives_the_way_to_the_latent():
    agent = make_agent()
    image = np.random.default_rng(0).integers(256, size=(1, 9, 64, 64), dtype=np.uint8)
    latent = agent.model.encode({"rgb": torch.from_numpy(image)})
    torch.testing.assert_close(latent.view(8, 2).sum(0), torch.ones(2))
