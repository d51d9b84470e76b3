"""Diffusion: exact reconstruction with an exact denoiser, and the link to the smoothed energy."""

import numpy as np
import pytest
import torch

from mbrl_flat.data.hopfield_energy import smoothed_energy
from mbrl_flat.errors import UserError
from mbrl_flat.studies.hopfield.ddpm import (
    NoiseSchedule,
    diffusion_loss,
    reconstruct,
    reconstruction_error,
)
from mbrl_flat.studies.hopfield.denoiser import UNet, sinusoidal


@pytest.fixture
def schedule():
    return NoiseSchedule(200)


def test_a_thousand_steps_have_the_published_variances():
    schedule = NoiseSchedule(1000)

    kept = schedule.signal.double().square()

    np.testing.assert_allclose(1.0 - kept[0], 1e-4, rtol=1e-3)
    np.testing.assert_allclose(1.0 - kept[-1] / kept[-2], 0.02, rtol=1e-3)
    torch.testing.assert_close(schedule.signal.square() + schedule.noise.square(), torch.ones(1000))


def test_fewer_steps_end_in_about_the_same_noise():
    np.testing.assert_allclose(
        NoiseSchedule(200).noise[-1], NoiseSchedule(1000).noise[-1], rtol=1e-4
    )
    with pytest.raises(UserError, match="at least 25 steps"):
        NoiseSchedule(10)


def exact_denoiser(data, schedule):
    """Noise expected given a noisy image, where the data are finitely many points."""

    def denoise(x, time):
        signal, noise = schedule.signal[time][:, None], schedule.noise[time][:, None]
        flat, points = x.flatten(1), data.flatten(1)
        score = -torch.cdist(flat / signal, points).square() / (2.0 * (noise / signal) ** 2)
        mean = score.softmax(1) @ points
        return ((flat - signal * mean) / noise).view_as(x)

    return denoise


def test_with_the_exact_denoiser_well_separated_images_come_back(schedule):
    data = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]]).view(3, 1, 1, 2)

    error = reconstruction_error(
        exact_denoiser(data, schedule), data, time=40, schedule=schedule, draws=4
    )

    assert error.max() < 1e-6


def test_the_exact_denoiser_follows_the_gradient_of_the_smoothed_energy(schedule):
    """D(x) - x = -grad E_s(x): denoising is retrieval."""
    data = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    time = torch.tensor([90, 90])
    signal, noise = schedule.signal[90], schedule.noise[90]
    clean_scale = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).double()
    point = clean_scale.clone().requires_grad_()

    energies = smoothed_energy(point, data.double(), scale=float(noise / signal))
    (gradient,) = torch.autograd.grad(energies.sum(), point)
    predicted = exact_denoiser(data.double(), schedule)(signal * clean_scale, time)
    denoised = (signal * clean_scale - noise * predicted) / signal

    torch.testing.assert_close(denoised, clean_scale - gradient, rtol=1e-5, atol=1e-5)


def test_a_perfect_prediction_of_the_noise_has_no_loss_and_zero_has_one(schedule):
    images = torch.rand(64, 1, 4, 4) * 2.0 - 1.0
    generator = torch.Generator().manual_seed(0)

    loss = diffusion_loss(lambda x, _: torch.zeros_like(x), images, schedule, generator=generator)

    assert abs(loss - 1.0) < 4.0 * np.sqrt(2.0 / images.numel())


def test_errors_before_and_after_are_measured_on_the_same_noise(schedule):
    images = torch.rand(3, 1, 8, 8) * 2.0 - 1.0
    torch.manual_seed(0)
    model = UNet(width=8)

    first = reconstruction_error(model, images, time=60, schedule=schedule, draws=2)
    torch.rand(5)
    second = reconstruction_error(model, images, time=60, schedule=schedule, draws=2)

    assert torch.equal(first, second)


def test_reconstruction_from_the_least_noise_takes_one_step(schedule):
    calls = []

    def denoise(x, time):
        calls.append(int(time[0]))
        return torch.zeros_like(x)

    noisy = torch.full((1, 1, 2, 2), 0.5)
    clean = reconstruct(denoise, noisy, 0, schedule)

    assert calls == [0]
    torch.testing.assert_close(clean, noisy / schedule.signal[0])


@pytest.mark.parametrize("size", [8, 14])
def test_the_network_keeps_the_shape_and_sees_the_time(size):
    torch.manual_seed(0)
    model = UNet(width=8, image_size=size)
    images = torch.randn(2, 1, size, size)

    early, late = model(images, torch.tensor([0, 0])), model(images, torch.tensor([150, 150]))

    assert early.shape == images.shape
    assert (early - late).abs().max() > 1e-4


def test_the_embedding_of_time_zero_is_known():
    expected = torch.cat([torch.zeros(4), torch.ones(4)])

    torch.testing.assert_close(sinusoidal(torch.tensor([0]), 8)[0], expected)


def test_odd_images_are_refused():
    with pytest.raises(UserError, match="must be even, got 7"):
        UNet(image_size=7)
