"""The causal transformer: what it sees, what it doesn't, and that a cache changes nothing."""

from dataclasses import replace

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.models.kv_cache import KVCache, valid_windows, windows_of
from mbrl_flat.models.transformer import (
    CausalTransformer,
    LearnedPositions,
    RelativePositions,
    TransformerConfig,
    causal_mask,
    sinusoids,
)

RELATIVE = TransformerConfig(
    size=16, num_layers=3, num_heads=4, feedforward=32, dropout=0.1, left_context=3
)
ABSOLUTE = replace(RELATIVE, relative=False, left_context=None)
CONFIGS = pytest.mark.parametrize("config", [RELATIVE, ABSOLUTE], ids=["relative", "absolute"])


def built(config, dtype=torch.float64):
    torch.manual_seed(0)
    model = CausalTransformer(config).to(dtype).eval()
    for block in model.blocks:
        if config.relative:
            torch.nn.init.normal_(block.attention.positions.content_bias)
            torch.nn.init.normal_(block.attention.positions.position_bias)
    return model


def tokens(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def begins(num, length, *starts):
    """An episode begins in the first step of every row, and in row ``b`` at each of ``starts``."""
    is_first = torch.zeros(num, length, dtype=torch.bool)
    is_first[:, 0] = True
    for row, step in starts:
        is_first[row, step] = True
    return is_first


def test_a_token_sees_itself_and_the_left_context_of_its_episode():
    mask = causal_mask(begins(1, 5, (0, 3)), 1)[0]

    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]]
    assert mask.int().tolist() == expected


@CONFIGS
def test_a_changed_token_changes_nothing_before_it(config):
    model, x, mask = built(config), tokens(2, 8, 16), causal_mask(begins(2, 8), config.left_context)
    other = x.clone()
    other[:, 5] += 1.0

    before, after = model(x, mask)[0], model(other, mask)[0]

    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.isclose(before[:, 5:], after[:, 5:]).all(-1).any()


@CONFIGS
def test_no_gradient_comes_from_the_future(config):
    model, x = built(config), tokens(1, 8, 16).requires_grad_()

    model(x, causal_mask(begins(1, 8), config.left_context))[0][:, 4, 0].sum().backward()

    assert x.grad is not None
    assert x.grad[:, 5:].abs().max() == 0.0
    assert x.grad[:, :5].abs().amin(-1).min() > 0.0


@CONFIGS
def test_nothing_crosses_an_episode_start(config):
    model, x = built(config), tokens(1, 8, 16)
    mask = causal_mask(begins(1, 8, (0, 4)), config.left_context)
    other = x.clone()
    other[:, :4] = tokens(1, 4, 16) * 3.0

    assert torch.equal(model(x, mask)[0][:, 4:], model(other, mask)[0][:, 4:])


def test_layers_that_attend_to_three_before_reach_nine_back():
    model, x = built(RELATIVE), tokens(1, 14, 16).requires_grad_()

    model(x, causal_mask(begins(1, 14), 3))[0][:, -1, 0].sum().backward()

    assert x.grad is not None
    reached = x.grad.abs().amax(-1)[0] > 0.0
    assert reached.tolist() == [False] * 4 + [True] * 10


def test_relative_attention_does_not_know_where_the_sequence_began():
    model, x = built(RELATIVE), tokens(1, 14, 16)

    late = model(x, causal_mask(begins(1, 14), 3))[0][:, -1]
    early = model(x[:, 4:], causal_mask(begins(1, 10), 3))[0][:, -1]

    torch.testing.assert_close(late, early, rtol=0.0, atol=1e-12)


def test_relative_scores_are_those_of_the_equation():
    positions = RelativePositions(RELATIVE).double()
    torch.nn.init.normal_(positions.position_bias)
    query = tokens(1, 4, 2, 4)

    score = positions(query, 5)

    table = positions.sinusoids @ positions.project.weight.T
    for head, i, j in [(0, 0, 3), (1, 1, 4), (2, 1, 1), (3, 0, 2)]:
        distance = 3 + i - j
        embedded = table[distance].view(4, 4)[head]
        expected = (query[0, head, i] + positions.position_bias[head, 0]) @ embedded
        torch.testing.assert_close(score[0, head, i, j], expected, rtol=1e-12, atol=1e-12)


def test_the_sinusoid_of_distance_zero_is_zeros_and_ones():
    assert sinusoids(3, 6)[0].tolist() == [0.0] * 3 + [1.0] * 3


@pytest.mark.parametrize(
    ("config", "room"),
    # A window that slides forgets; only a limited context allows for that.
    [(RELATIVE, 0), (RELATIVE, 6), (ABSOLUTE, 6)],
    ids=["relative-sliding", "relative-preallocated", "absolute-preallocated"],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["f32", "f64"]
)
def test_steps_with_a_cache_give_what_the_whole_sequence_gives(config, dtype, tolerance, room):
    model, x = built(config, dtype), tokens(3, 12, 16, dtype=dtype)
    is_first = begins(3, 12, (1, 4))
    whole, _ = model(x, causal_mask(is_first, config.left_context))

    prefix = is_first[:, :6]
    _, cache = model(x[:, :6], causal_mask(prefix, config.left_context))
    if config.left_context is not None:
        cache = KVCache(
            tuple(windows_of(entry, 3)[:, -1] for entry in cache.keys),
            tuple(windows_of(entry, 3)[:, -1] for entry in cache.values),
            valid_windows(prefix, 3)[:, -1],
        )
    cache, outputs = cache.with_room(room), []
    for step in range(6, 12):
        out, cache = model.step(x[:, step], cache)
        outputs.append(out)

    torch.testing.assert_close(torch.stack(outputs, 1), whole[:, 6:], rtol=0.0, atol=tolerance)


def test_steps_from_an_empty_cache_give_what_the_whole_sequence_gives():
    model, x = built(RELATIVE), tokens(2, 7, 16)
    cache = KVCache.empty(2, (3, 4, 3, 4), torch.device("cpu"))
    cache = KVCache(*([t.double() for t in entries] for entries in cache[:2]), cache.valid)

    outputs = []
    for step in range(7):
        out, cache = model.step(x[:, step], cache)
        outputs.append(out)

    whole, _ = model(x, causal_mask(begins(2, 7), 3))
    torch.testing.assert_close(torch.stack(outputs, 1), whole, rtol=0.0, atol=1e-12)


def test_many_rows_at_once_give_what_single_rows_give():
    model, x = built(RELATIVE), tokens(5, 6, 16)
    start = KVCache.empty(5, (3, 4, 3, 4), torch.device("cpu"))
    start = KVCache(*([t.double() for t in entries] for entries in start[:2]), start.valid)

    def rolled(x, cache):
        for step in range(6):
            out, cache = model.step(x[:, step], cache)
        return out

    together = rolled(x, start.with_room(6))
    single = [
        rolled(
            x[row : row + 1],
            KVCache.from_state({k: v[row : row + 1] for k, v in start.to_state().items()}),
        )
        for row in range(5)
    ]

    torch.testing.assert_close(together, torch.cat(single), rtol=0.0, atol=1e-12)


def test_a_cache_with_room_is_continued_without_a_copy():
    model, x = built(RELATIVE), tokens(2, 2, 16)
    cache = KVCache.empty(2, (3, 4, 3, 4), torch.device("cpu"))
    cache = KVCache(*([t.double() for t in entries] for entries in cache[:2]), cache.valid)
    roomy = cache.with_room(2)

    _, first = model.step(x[:, 0], roomy)
    _, second = model.step(x[:, 1], first)

    assert second.keys[0].data_ptr() == roomy.keys[0].data_ptr()
    assert (second.filled, cache.filled) == (5, 3)


def test_a_sliding_step_leaves_the_old_cache_as_it_was():
    model, x = built(RELATIVE), tokens(2, 2, 16)
    cache = KVCache.empty(2, (3, 4, 3, 4), torch.device("cpu"))
    cache = KVCache(*([t.double() for t in entries] for entries in cache[:2]), cache.valid)
    _, cache = model.step(x[:, 0], cache)
    before = [tensor.clone() for tensor in cache.to_state().values()]

    model.step(x[:, 1], cache)

    assert all(map(torch.equal, before, cache.to_state().values()))


def test_forgotten_rows_start_anew():
    model, x = built(RELATIVE), tokens(2, 3, 16)
    fresh = KVCache.empty(2, (3, 4, 3, 4), torch.device("cpu"))
    fresh = KVCache(*([t.double() for t in entries] for entries in fresh[:2]), fresh.valid)
    _, used = model.step(x[:, 0], fresh)

    out, _ = model.step(x[:, 1], used.keep(torch.tensor([False, True])))

    fresh_out, _ = model.step(x[:, 1], fresh)
    assert torch.equal(out[0], fresh_out[0])
    assert not torch.isclose(out[1], fresh_out[1]).any()


def test_windows_hold_each_step_and_those_before_it():
    sequence = torch.arange(1.0, 5.0).view(1, 1, 4, 1)

    windows = windows_of(sequence, 3)

    assert windows.shape == (1, 4, 1, 3, 1)
    assert windows[0, :, 0, :, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_windows_are_valid_within_the_episode_alone():
    valid = valid_windows(begins(1, 4, (0, 2)), 3)

    assert valid[0].int().tolist() == [[0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 1, 1]]


def test_a_state_of_tensors_is_a_cache_and_back():
    cache = KVCache.empty(2, (3, 4, 5, 6), torch.device("cpu"))

    again = KVCache.from_state(cache.to_state())

    assert all(
        a is b for a, b in zip(cache.to_state().values(), again.to_state().values(), strict=True)
    )


@CONFIGS
def test_the_loss_can_be_differentiated_twice(config):
    model, x = built(config), tokens(2, 5, 16)
    mask = causal_mask(begins(2, 5), config.left_context)
    params = [p for p in model.parameters() if p.requires_grad]
    loss = model(x, mask)[0].square().sum() + model(x, mask)[0].pow(3).sum()

    grads = torch.autograd.grad(loss, params, create_graph=True)
    twice = torch.autograd.grad(sum(g.square().sum() for g in grads), params)

    assert all(torch.isfinite(t).all() for t in twice)
    assert sum(float(t.abs().sum()) for t in twice) > 0.0


def test_learned_positions_begin_where_they_are_told():
    positions = LearnedPositions(4, 6).double()
    x = tokens(1, 6, 4)

    torch.testing.assert_close(positions(x)[:, 2:], positions(x[:, 2:], 2), rtol=0.0, atol=1e-15)


def test_dropout_acts_in_training_alone():
    model, x, mask = built(RELATIVE), tokens(1, 5, 16), causal_mask(begins(1, 5), 3)

    assert torch.equal(model(x, mask)[0], model(x, mask)[0])
    model.train()
    assert not torch.equal(model(x, mask)[0], model(x, mask)[0])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_heads": 3}, "3 heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"left_context": -1}, "left_context"),
        ({"left_context": None}, "longest distance"),
        ({"size": 15, "num_heads": 1}, "even size"),
    ],
)
def test_shapes_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        replace(RELATIVE, **wrong)
