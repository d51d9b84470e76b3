"""What the classes say of themselves, and what they answer to arguments that are wrong."""

import inspect
import re

import pytest
import torch
from torch import nn

from mbrl_flat import optim
from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS, SAM, FlatOptimizer, make_optimizer
from mbrl_flat.optim.step_options import OPTION_NAMES


def model():
    return nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))


CLASSES = sorted(
    name
    for name in vars(optim)
    if inspect.isclass(kind := getattr(optim, name))
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not FlatOptimizer
)


@pytest.mark.parametrize("name", CLASSES)
def test_an_argument_that_a_class_does_not_know_is_answered_with_those_that_it_knows(name):
    kind = getattr(optim, name)
    names = list(inspect.signature(kind).parameters)

    with pytest.raises(TypeError, match=rf"^{name}: .*'radius'; it takes params, and") as caught:
        kind(model().parameters(), radius=0.1)

    assert re.search(rf"by name {', '.join(names[1:])}\.", str(caught.value))
    assert ("base=partial(" in str(caught.value)) == ("base" in names)


def test_settings_of_the_base_and_a_second_position_are_answered():
    with pytest.raises(TypeError, match=r"'momentum'.*base=partial"):
        SAM(model(), momentum=0.9)
    with pytest.raises(TypeError, match="too many positional arguments; it takes params, and"):
        SAM(model(), torch.optim.SGD)
    with pytest.raises(TypeError, match="SAM: missing a required argument: 'params'"):
        SAM()


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_help_shows_equations_source_arguments_and_an_example(name):
    entry = OPTIMIZERS[name]
    text = inspect.getdoc(entry.kind)

    for setting, default in entry.settings.items():
        entered = rf" {setting} \([^:]*default {re.escape(repr(default))}\): \w"
        assert re.search(entered, " ".join(text.split())), setting
    assert "    params: Parameters" in text
    assert all(option in text for option in OPTION_NAMES)
    assert entry.paper.removeprefix("arXiv:") in text
    example = text.split("Example:\n")[1].replace(">>> ", "")
    known = {entry.kind.__name__: entry.kind, "model": model()}
    known["closure"] = lambda: _loss(known["model"])
    exec(inspect.cleandoc(example), known)  # our own text
    assert torch.isfinite(known["loss"])


def _loss(net):
    net.zero_grad()
    loss = net(torch.ones(4, 2)).square().mean()
    loss.backward()
    return loss


def test_settings_of_the_method_stand_before_those_of_all():
    names = list(inspect.signature(optim.VaSSO).parameters)

    assert names[:5] == ["params", "base", "lr", "rho", "theta"]
    assert names[-len(OPTION_NAMES) :] == list(OPTION_NAMES)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (None, "was given NoneType; give the model, its parameters"),
        (3, "was given int; give"),
        ("abc", "was given str; give"),
        (torch.ones(2), "was given Tensor; give"),
        ([1, 2], "was given int among its parameters"),
        ([{"lr": 0.1}], r"needs the key 'params', got \['lr'\]"),
    ],
)
def test_what_is_no_parameter_is_refused(params, message):
    with pytest.raises(UserError, match=message):
        SAM(params)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base": lambda groups: 3}, "makes 3, which is no optimizer"),
        ({"base": torch.optim.SGD(model().parameters()), "lr": 0.1}, "Give lr=0.1 to the base"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"lr": -1.0}, "lr must be at least 0, got -1.0"),
        ({"only": 3}, "only=3 selects nothing; give a list"),
        ({"same_rng": "yes"}, "same_rng must be true or false, got 'yes'"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(given, message):
    with pytest.raises(UserError, match=message):
        SAM(model(), **given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: o.step(3), r"^SAM\.step was given 3; give a closure"),
        (lambda o: o.step(lambda: 1, scaler=3), "scaler must be a torch.amp.GradScaler"),
        (lambda o: o.configure({"max_norm": 1.0}), "Unknown step option 'max_norm'"),
        (lambda o: o.load_state_dict(None), r"takes what state_dict\(\) gave, got None"),
        (lambda o: o.add_param_group(3), "was given int among its parameters"),
        (lambda o: optim.evaluation_params(3), "evaluation_params takes an optimizer, got 3"),
        (lambda o: optim.module_groups(3), "takes a module or modules by name, got <class 'int'>"),
        (lambda o: make_optimizer(model(), "sam"), "takes a name and then the parameters, got Seq"),
        (lambda o: optim.SWA(model()).step(), r"^SWA\.step was given None"),
        (lambda o: optim.SGD(model(), nesterov=True), "SGD refuses its settings: Nesterov"),
    ],
)
def test_a_wrong_call_is_answered(call, message):
    with pytest.raises(UserError, match=message):
        call(SAM(model()))


def test_a_name_that_the_catalogue_lacks_gives_the_nearest():
    with pytest.raises(KeyError, match="did you mean 'sam'"):
        OPTIMIZERS["smm"]
    with pytest.raises(TypeError, match="takes a subclass of FlatOptimizer, got <class 'int'>"):
        optim.register("theirs", evaluations=1, memory=0)(int)
