"""What the parts of a batch draw is what the whole batch draws, part by part."""

import pytest
import torch

from mbrl_flat.agents.actors import make_actor
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.tdmpc2.policy import Policy
from mbrl_flat.distributed.batch_shard import (
    Shard,
    current_shard,
    draw_shard,
    gather_shards,
    use_shard,
)
from mbrl_flat.models.categorical import draw_one_hot, gumbel_noise
from mbrl_flat.models.dropout import dropout
from mbrl_flat.models.ensemble import EnsembleMLP
from mbrl_flat.models.random_shift import random_shift
from mbrl_flat.specs import Continuous, EnvSpec

COUNT, ROWS = 3, 12
SPEC = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=50)


def ensemble(x):
    torch.manual_seed(1)
    network = EnsembleMLP(4, x.shape[-1], [8, 8], 5, dropout=0.3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.manual_seed(0)
    return network(x).movedim(1, 0)


def policy(latent):
    torch.manual_seed(1)
    network = Policy(SPEC, TDMPC2Config(size="debug"))
    torch.manual_seed(0)
    return network(latent).action


def gaussian(features):
    torch.manual_seed(1)
    actor = make_actor(Continuous(dim=2), lambda num: torch.nn.Linear(features.shape[-1], num))
    torch.manual_seed(0)
    return actor.act(features)


LATENT = TDMPC2Config(size="debug").dims["latent_dim"]
DRAWS = {
    "dropout": (lambda x: dropout(x, 0.3, training=True), torch.ones(ROWS, 4, 5)),
    "ensemble": (ensemble, torch.ones(ROWS, 2, 3)),
    "shift": (
        lambda x: random_shift(x, 3),
        torch.arange(ROWS * 2 * 3 * 9 * 9).view(ROWS, 2, 3, 9, 9).to(torch.uint8),
    ),
    "gumbel": (
        lambda x: gumbel_noise((len(x), 4, 5), device=torch.device("cpu")),
        torch.ones(ROWS),
    ),
    "one-hot": (draw_one_hot, torch.full((ROWS, 4, 5), 0.2).log()),
    "policy": (policy, torch.ones(ROWS, 4, LATENT)),
    "gaussian": (gaussian, torch.ones(ROWS, 4)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_draws_of_all_parts_are_those_of_the_whole(name):
    function, x = DRAWS[name]
    torch.manual_seed(0)
    whole = function(x)
    ended = torch.get_rng_state()

    for index, part in enumerate(x.chunk(COUNT)):
        torch.manual_seed(0)
        with use_shard(Shard(index, COUNT)):
            drawn = function(part)

        torch.testing.assert_close(drawn, whole.chunk(COUNT)[index])
        assert torch.equal(torch.get_rng_state(), ended)
    assert len({tuple(row.flatten().tolist()) for row in whole}) > 1


def test_rows_may_run_along_any_dimension():
    def draw(shape):
        return torch.arange(shape[0] * shape[1]).view(shape)

    with use_shard(Shard(1, 2)):
        assert draw_shard(draw, (2, 3), dim=1).tolist() == [[3, 4, 5], [9, 10, 11]]


def test_a_share_ends_with_its_context_also_when_that_fails():
    with pytest.raises(KeyError), use_shard(Shard(1, 2)):
        raise KeyError

    assert current_shard() == Shard(0, 1)


def test_all_rows_of_an_undivided_batch_are_the_rows_themselves():
    rows = torch.ones(3, requires_grad=True)

    assert gather_shards(rows) is rows
