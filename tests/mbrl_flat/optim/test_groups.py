"""Groups know whose their parameters are and of what kind; names and patterns select among them."""

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.models.transformer import RelativePositions, TransformerConfig
from mbrl_flat.optim.groups import module_groups, selected

RELATIVE = {"content_bias", "position_bias"}


@pytest.fixture
def modules():
    encoder = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 3, bias=False))
    return {"encoder": encoder, "head": nn.Linear(3, 1), "pool": nn.ReLU()}


def names(groups, chosen):
    return {
        name
        for group in groups
        for param, name in zip(group["params"], group["param_names"], strict=True)
        if param in chosen
    }


def test_every_parameter_has_its_name_and_the_kind_of_its_layer(modules):
    encoder, head = module_groups(modules)

    assert dict(zip(encoder["param_names"], encoder["flat_kinds"], strict=True)) == {
        "encoder.0.weight": "weight",
        "encoder.0.bias": "bias",
        "encoder.1.weight": "norm",
        "encoder.1.bias": "norm",
        "encoder.2.weight": "weight",
    }
    assert head["flat_name"] == "head"


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["head"], {"head.weight", "head.bias"}),
        (["encoder.1"], {"encoder.1.weight", "encoder.1.bias"}),
        (["norm"], {"encoder.1.weight", "encoder.1.bias"}),
        (["bias"], {"encoder.0.bias", "head.bias"}),
        (["*.2.weight", "head.bias"], {"encoder.2.weight", "head.bias"}),
    ],
)
def test_a_selection_is_by_group_path_kind_or_pattern(modules, only, expected):
    groups = module_groups(modules)

    assert names(groups, selected(groups, only)) == expected


def test_a_minus_takes_out_what_it_names(modules):
    groups = module_groups(modules)
    everything = selected(groups, None)

    assert selected(groups, ["-norm"]) == everything - selected(groups, ["norm"])
    first = groups[0]["flat_name"]
    assert selected(groups, [first, "-bias"]) == selected(groups, [first]) - selected(
        groups, ["bias"]
    )


def test_no_selection_means_all(modules):
    groups = module_groups(modules)

    assert len(selected(groups, None)) == 7


@pytest.mark.parametrize("only", [[], "head", ["hed"], ["encoder.9"]])
def test_a_selection_of_nothing_is_refused(modules, only):
    with pytest.raises(UserError):
        selected(module_groups(modules), only)


def test_a_refusal_says_what_is_not_there_or_what_could_be_named():
    groups = module_groups({"": nn.Linear(2, 3)})

    with pytest.raises(UserError, match=r"norm selects nothing: the model has no normalisation"):
        selected(groups, ["norm"])
    with pytest.raises(UserError, match=r"choose one of: bias, weight\.$"):
        selected(groups, ["elsewhere"])


def test_a_shared_parameter_belongs_to_the_first_module(modules):
    modules["copy"] = modules["head"]

    assert [group["flat_name"] for group in module_groups(modules)] == ["encoder", "head"]


def test_learning_rates_are_scaled_by_module(modules):
    groups = module_groups(modules, lr_scales={"encoder": 0.3})

    assert [group.get("flat_lr_scale") for group in groups] == [0.3, None]


def test_running_statistics_travel_with_the_group():
    norm = nn.BatchNorm1d(3)

    (group,) = module_groups({"body": nn.Sequential(nn.Linear(2, 3), norm)})

    assert all(a is b for a, b in zip(group["flat_buffers"], norm.buffers(), strict=True))
    assert "flat_buffers" not in module_groups({"head": nn.Linear(1, 1)})[0]
    assert torch.is_tensor(group["flat_buffers"][0])


@pytest.mark.parametrize(
    ("layer", "biases"),
    [
        (nn.GRU(2, 2), {"bias_ih_l0", "bias_hh_l0"}),
        (nn.MultiheadAttention(4, 2), {"in_proj_bias", "out_proj.bias"}),
        (RelativePositions(TransformerConfig(size=4, num_heads=2, left_context=3)), RELATIVE),
    ],
)
def test_biases_are_known_by_every_name_that_layers_give_them(layer, biases):
    groups = module_groups({"": layer})

    assert names(groups, selected(groups, ["bias"])) == biases
    assert not names(groups, selected(groups, ["-bias"])) & biases


def test_kinds_of_parameters_that_came_without_their_layers_are_not_guessed():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    with pytest.raises(UserError, match="give the model itself, or module_groups"):
        selected([{"params": list(model.parameters())}], ["norm"])
    with pytest.raises(UserError, match="no normalisation layer"):
        selected(module_groups({"model": model[0]}), ["norm"])
