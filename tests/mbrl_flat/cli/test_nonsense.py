"""What no setting means is refused with one message before anything is written."""

import re

import pytest

from mbrl_flat.cli import main as cli
from mbrl_flat.cli.composition import build_part
from mbrl_flat.cli.error_messages import explain_error
from mbrl_flat.errors import UserError
from mbrl_flat.runs.config import RunConfig

LONG = "x" * 3000


def test_a_part_without_its_target_is_refused(fails):
    said = "study has no _target_; leave ~study._target_ out."
    assert said in fails("experiment=label_noise", "~study._target_", entry=cli.supervised)
    with pytest.raises(UserError, match=r"probe has no _target_"):
        build_part({"batch_size": 4}, "probe")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["env=gym", "env.kwargs=null"], "env.kwargs must be a mapping, such as {a: 1}, got null."),
        (["env=gym", "+env.kwargs=5"], "env.kwargs is there already; leave out the +"),
        (["optimizer=smm", "+env.kwargs.g=1"], "Unknown optimizer 'smm'"),
        (["env=gym", "+env.kwargs.g=nan"], "env.kwargs.g must be finite, got nan."),
        (["env=gym", "+env.kwargs.a=[1,{b:nan}]"], "env.kwargs.a.b must be finite, got nan."),
        (["env=gym", "env.task=:CartPole-v1"], "':CartPole-v1' names no module before its colon"),
        (["env=gym", "env.task=a..b:CartPole-v1"], "names no module before its colon"),
        (["env=gym", "env.task=Qqqq-v0"], "'Qqqq-v0' for env=gym; the nearest of "),
        (["env=dummy", "objective="], "Unknown metric '' for objective"),
        (["env=dummy", "objective=eval/retrun_mean"], "did you mean 'eval/return_mean'"),
        (["env=dummy", "agent._partial_=7"], "agent._partial_ must be true or false, got 7."),
        (["env=dummy", "agent._partial_=false"], "agent needs a value of spec; agent._partial_="),
        (["env=dummy", "video=7"], "video must be true or false, got 7."),
        (["env=dummy", "progress=1.5"], "progress must be true or false, got 1.5."),
        (["-m", "video=true,7"], "video must be true or false, got true,7."),
        (["-m", "seed=range(0,0)"], "seed=range(0,0) names no value, so the sweep has no run"),
        (["-m", "seed=range(3,0)", "optimizer=adam,sam"], "names no value"),
        (["-m", "seed=range(0,3,0)"], "has the step 0"),
        (["-m", "seed=range(0,1e9)", "optimizer=adam,sam"], "more than 100,000 runs"),
    ],
)
def test_nonsense_is_refused_at_train(fails, tmp_path, words, said):
    message = fails(*words, "preset=debug", "steps=100")

    assert said in message
    assert len(message) < 400
    assert not list(tmp_path.rglob("*.yaml"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hopfield", "study.size=-1"], "size must be at least 1, got -1. (at study)"),
        (["hopfield", "study.strengths=[0.1,-1]"], "strengths must be at least 0, got -1."),
        (["label_noise", "study.radii.sam=[-1]"], "radii.sam must be at least 0, got -1."),
        (["label_noise", "study.radii.sam=[a]"], "radii.sam must be a number, got 'a'."),
        (["label_noise", "+study.radii.smm=[1]"], "Unknown method 'smm'; did you mean 'sam'?"),
        (["label_noise", "study.task.train_size=5000"], "there are 1797 examples"),
        (["weight_decay_eos", "study.sweeps.mlp.task.size=5000"], "size must be below 1797"),
        (["weight_decay_eos", "study.sweeps.mlp.task.norm=xx"], "Unknown norm 'xx'"),
        (["weight_decay_eos", "study.sweeps.mlp.steps=0"], "steps must be at least 1, got 0."),
        (["central_claim", "study.variants.sam.method=smm"], "Unknown method 'smm'"),
        (["central_claim", "study.variants.sam.rho=-1"], "rho must be at least 0, got -1."),
    ],
)
def test_studies_refuse_sizes_before_they_start(fails, tmp_path, words, said):
    name, *settings = words

    assert said in fails(f"experiment={name}", *settings, entry=cli.supervised)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder_of_recordings(fails, tmp_path):
    (tmp_path / "file").touch()

    message = fails(
        "experiment=central_claim", "study.task.recording.folder=file", entry=cli.supervised
    )

    assert re.search(r"Cannot write to file/walker-walk_\w+: .*/file is not a folder", message)


def shown(text):
    return explain_error(UserError(text), command="train", schema=RunConfig, known=list)


@pytest.mark.parametrize(
    "text",
    [
        f"seed must be a whole number, got '{LONG}'.",
        f"Cannot read run_dir={LONG}=a; quote \"run_dir='{LONG}'\".",
        f"got '{'a b ' * 900}'; give a number.",
        f"must be at least 1, got {list(range(1000))}.",
        f"/{LONG}/{LONG}: File name too long",
    ],
)
def test_long_values_are_shortened_and_the_rest_is_kept(text):
    assert len(shown(text)) < 250
    assert shown(text)[:10] == text[:10]
    assert shown(text)[-1] == text[-1]


@pytest.mark.parametrize(
    "text",
    [
        f"resume it with resume=/folder/{'a' * 70}/{'b' * 70}.",
        f"run: pip install -e '/folder/{'a' * 70}/{'b' * 70}[dmc]'.",
        f"the run's folder {'and more words ' * 30}of the agent's.",
        f"choose one of: {', '.join(f'name_{n}' for n in range(50))}.",
    ],
)
def test_paths_and_sentences_are_kept_whole(text):
    assert shown(text) == text


def test_an_export_to_a_file_is_refused_before_the_model_is_loaded(command, fails, tmp_path):
    words = ["env=dummy", "preset=debug", "steps=150", "eval_every=0", "probe_every=0"]
    command(cli.train, *words, "progress=false", "run_dir=run")
    (tmp_path / "run" / "checkpoints" / "latest.pt").write_bytes(b"not read")
    (tmp_path / "file").touch()

    for out in ("file", "file/below"):
        message = fails("run=run", f"out={out}", entry=cli.export)
        assert f"Cannot write to {out}: " in message
        assert "is not a folder" in message
