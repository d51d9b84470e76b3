"""What compiled functions say, and what is copied out of the memory of a CUDA graph."""

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.runtime import compilation
from mbrl_flat.runtime.compilation import Compiled, own_gradients, owned, pays, use_compile_cache


def test_the_first_call_is_announced_and_no_other(monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    double = Compiled(lambda x: 2 * x, "the doubling")

    results = [double(1), double(2)]

    said = capsys.readouterr().err
    assert results == [2, 4]
    assert said.count("compiling the doubling: the first call takes a while") == 1
    assert said.count("compiled the doubling in 0 s") == 1


def test_one_compilation_is_made_for_each_shape_and_never_a_silent_retreat(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda function, **settings: asked.update(settings))

    Compiled(lambda x: x, "nothing")

    assert asked["fullgraph"] is True
    assert asked["dynamic"] is False
    assert torch._dynamo.config.recompile_limit >= 64


def test_graphs_are_recorded_on_cuda_alone(monkeypatch):
    modes = []
    monkeypatch.setattr(
        torch, "compile", lambda function, **settings: modes.append(settings["mode"])
    )
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        Compiled(lambda x: x, "nothing", graphs=True)
        Compiled(lambda x: x, "nothing")

    assert modes == [None, None, "reduce-overhead", None]


def test_what_is_owned_survives_a_change_of_the_original():
    original = {"a": torch.ones(2, requires_grad=True), "b": (torch.zeros(1), 3.0)}

    copy = owned(original)
    with torch.no_grad():
        original["a"].add_(1.0)

    assert torch.equal(copy["a"], torch.ones(2))
    assert not copy["a"].requires_grad
    assert copy["b"][1] == 3.0


def test_gradients_are_copied_and_missing_ones_stay_missing():
    with_grad, without = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    with_grad.sum().backward()
    graph_memory = with_grad.grad

    own_gradients([with_grad, without])
    graph_memory.zero_()

    assert torch.equal(with_grad.grad, torch.ones(2))
    assert without.grad is None


def test_compiled_code_has_a_folder_of_its_own_unless_one_was_chosen(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    first = use_compile_cache()

    assert first == tmp_path / "mbrl_flat" / f"compiled-torch-{torch.__version__}"
    assert use_compile_cache(tmp_path / "other") == first


@pytest.mark.parametrize(
    ("threads", "steps", "compiler", "compiles"),
    [
        (8, 1_000_000, "/bin/g++", True),
        (8, 20_000, "/bin/g++", False),
        (8, 1_000_000, "", False),
        (1, 1_000_000, "/bin/g++", False),
    ],
)
def test_auto_compiles_long_runs_where_no_fused_operators_are_used(
    monkeypatch, threads, steps, compiler, compiles
):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: compiler or None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    assert pays("auto", torch.device("cpu"), steps=steps) is compiles
    assert pays(True, torch.device("cpu"), steps=1) is True
    assert pays(False, torch.device("cuda"), steps=steps) is False


def test_another_word_for_compile_is_refused():
    with pytest.raises(UserError, match="true, false or auto, got 'yes'"):
        pays("yes", torch.device("cpu"), steps=1)
