"""The loading and training code of Stable Diffusion on a tiny pipeline of the same classes."""

import sys

import numpy as np
import pytest
import torch

from mbrl_flat.errors import MissingExtraError, UserError
from mbrl_flat.optim import make_optimizer
from mbrl_flat.studies.experiments.hopfield_latent_diffusion import (
    HopfieldLatentDiffusion,
    PromptedUNet,
)
from mbrl_flat.studies.framework import TrialRows
from mbrl_flat.studies.hopfield.continual import Stage
from mbrl_flat.studies.hopfield.ddpm import NoiseSchedule, diffusion_loss
from mbrl_flat.studies.hopfield.latent_diffusion import (
    encode_images,
    load_pipeline,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A randomly initialised pipeline, written in the format in which the published one comes."""
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("pipeline")
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "b</w>", "a", "b"]
    (path / "vocab.json").write_text(
        "{" + ", ".join(f'"{word}": {i}' for i, word in enumerate(words)) + "}"
    )
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(path / "vocab.json"), str(path / "merges.txt"), model_max_length=8
    )
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=16
        ),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=diffusers.UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=8,
            attention_head_dim=2,
        ),
        scheduler=diffusers.DDPMScheduler(num_train_timesteps=100),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(path / "saved")
    return path / "saved"


def test_only_the_u_net_is_trained(folder):
    model = load_pipeline(str(folder), offline=True)

    assert all(p.requires_grad for p in model.unet.parameters())
    assert not any(p.requires_grad for p in model.vae.parameters())
    assert not any(p.requires_grad for p in model.text_encoder.parameters())


def test_latents_are_scaled_means_of_the_autoencoder(folder):
    model = load_pipeline(str(folder), offline=True)
    images = torch.rand(2, 3, 16, 16) * 2.0 - 1.0

    latents = encode_images(model, images)

    expected = model.vae.encode(images).latent_dist.mean * 0.18215
    torch.testing.assert_close(latents, expected)


@pytest.mark.parametrize("optimizer", ["adam", "sam"])
def test_any_optimizer_of_the_registry_fine_tunes_it(folder, optimizer):
    model = load_pipeline(str(folder), offline=True)
    latents = encode_images(model, torch.rand(4, 3, 16, 16) * 2.0 - 1.0)
    prompted = PromptedUNet(model, "a")
    schedule = NoiseSchedule.of(model.scheduler.alphas_cumprod)
    chosen = make_optimizer(optimizer, model.unet, lr=3e-3)

    def loss():
        draws = torch.Generator().manual_seed(0)
        return diffusion_loss(prompted, latents, schedule, generator=draws)

    def closure():
        chosen.zero_grad()
        value = loss()
        value.backward()
        return value

    before = float(loss())
    for _ in range(10):
        chosen.step(closure)

    assert float(loss()) < before


def test_a_folder_without_a_pipeline_gets_a_sentence(tmp_path):
    pytest.importorskip("diffusers")

    with pytest.raises(UserError, match="could not be loaded: give a folder"):
        load_pipeline(str(tmp_path), offline=True)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)

    with pytest.raises(
        MissingExtraError, match=r"needs diffusers; run: pip install .*\[diffusion\]"
    ):
        load_pipeline("anything")


def test_the_recipe_measures_forgetting_energy_and_replay_in_latent_space(folder):
    study = HopfieldLatentDiffusion(
        first=Stage(steps=2, lr=1e-3, batch_size=4),
        second=Stage(steps=3, lr=1e-3, batch_size=4),
        policies=("none", "top_energy"),
        draws=1,
        sampler_steps=2,
        seeds=1,
        pipeline=str(folder),
        prompt="a b",
        image_size=16,
        examples=20,
        budget=0.2,
        offline=True,
    )

    rows = [study.measure(cell) for cell in study.cells(TrialRows())]
    again = study.measure(study.cells(TrialRows())[0])

    assert again["forgetting_curve"] == rows[0]["forgetting_curve"]
    assert len(rows[0]["energy_curve"]) == len(rows[0]["forgetting_curve"]) == 20
    energy = np.array(rows[1]["energy_curve"])
    assert set(rows[1]["replayed_curve"]) == set(np.argsort(energy)[-4:].tolist())
    assert rows[0]["replayed_curve"] == []
    assert 0.0 < rows[0]["second_loss"] < 10.0


def test_a_recipe_begins_every_seed_with_the_published_weights(folder):
    study = HopfieldLatentDiffusion(pipeline=str(folder), image_size=16, examples=4, offline=True)
    first = study.denoiser()
    before = {name: entry.clone() for name, entry in first.unet.state_dict().items()}
    with torch.no_grad():
        next(first.unet.parameters()).add_(1.0)

    after = study.denoiser().unet.state_dict()

    assert all(torch.equal(before[name], after[name]) for name in before)
