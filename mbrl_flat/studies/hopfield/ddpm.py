r"""A denoising diffusion model of images: noise schedule, loss, and deterministic reconstruction.

.. math::
    x_t = \sqrt{\bar\alpha_t} x_0 + \sqrt{1 - \bar\alpha_t} \epsilon, \qquad
    L = E_{t, \epsilon} |\epsilon - \epsilon_\theta(x_t, t)|^2

Reconstruction noises a sample to ``x_t`` and follows the deterministic sampler back:

.. math::
    x_{s} = \sqrt{\bar\alpha_s} \, \frac{x_t - \sqrt{1 - \bar\alpha_t} \epsilon_\theta}
        {\sqrt{\bar\alpha_t}} + \sqrt{1 - \bar\alpha_s} \epsilon_\theta

References:
    Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239.
    Song, Meng, Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, arXiv:2010.02502, Eq. 12
    with eta = 0.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor

from mbrl_flat.errors import UserError

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Predicts the noise ``[N, C, Hh, Ww]`` in noisy images at integer times ``[N]``."""


class NoiseSchedule:
    """Linear variances, scaled so that any number of steps ends in the same noise.

    Args:
        num_steps: Diffusion steps T; 1000 gives the published 1e-4 to 0.02.

    Attributes:
        signal: ``sqrt(alpha_bar_t)`` ``[T]``.
        noise: ``sqrt(1 - alpha_bar_t)`` ``[T]``.

    Raises:
        UserError: If there are too few steps for the variances to stay below one.
    """

    def __init__(self, num_steps: int = 200) -> None:
        if num_steps < 25:
            raise UserError(f"A noise schedule needs at least 25 steps, got {num_steps}.")
        scale = 1000.0 / num_steps
        variances = torch.linspace(1e-4 * scale, 0.02 * scale, num_steps, dtype=torch.float64)
        kept = (1.0 - variances).cumprod(0)
        self.num_steps = num_steps
        self.signal = kept.sqrt().float()
        self.noise = (1.0 - kept).sqrt().float()

    @classmethod
    def of(cls, kept: Tensor) -> "NoiseSchedule":
        """Take the products of ``1 - variance`` ``[T]`` of a published model."""
        schedule = cls(len(kept))
        schedule.signal, schedule.noise = kept.sqrt(), (1.0 - kept).sqrt()
        return schedule

    def corrupt(self, images: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """Noisy images ``[N, ...]`` at integer times ``[N]``."""
        shape = (-1, *[1] * (images.ndim - 1))
        signal = self.signal.to(images.device)[time].view(shape)
        return signal * images + self.noise.to(images.device)[time].view(shape) * noise


def diffusion_loss(
    denoiser: Denoiser, images: Tensor, schedule: NoiseSchedule, *, generator: Generator
) -> Tensor:
    """Squared error of the predicted noise at random times.

    Args:
        denoiser: The network that predicts the noise of ``[N, C, H, W]``.
        images: Clean images in [-1, 1], ``[N, C, Hh, Ww]``.
        schedule: How much noise each of the T diffusion steps has.
        generator: Source of times and noise, on the CPU.

    Returns:
        Mean over images and pixels, a scalar.
    """
    time = torch.randint(schedule.num_steps, (len(images),), generator=generator)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    predicted = denoiser(schedule.corrupt(images, time, noise), time.to(images.device))
    return (predicted - noise).square().mean()


@torch.no_grad()
def reconstruct(
    denoiser: Denoiser, noisy: Tensor, time: int, schedule: NoiseSchedule, *, num_steps: int = 20
) -> Tensor:
    """Follow the deterministic sampler from ``x_t`` to a clean image.

    Args:
        denoiser: The network that predicts the noise of ``[N, C, H, W]``.
        noisy: ``[N, C, Hh, Ww]`` at ``time``.
        time: Where they are, in 0..T-1.
        schedule: How much noise each of the T diffusion steps has.
        num_steps: Steps of the sampler; fewer where ``time`` is smaller.

    Returns:
        Clean images ``[N, C, Hh, Ww]``, clipped to [-1, 1].
    """
    count = min(num_steps, time + 1)
    times = torch.linspace(time, 0, count).round().long().unique().flip(0).tolist()
    x = noisy
    for later, earlier in pairwise(times):
        clean, predicted = _split(denoiser, x, later, schedule)
        x = schedule.signal[earlier] * clean + schedule.noise[earlier] * predicted
    return _split(denoiser, x, times[-1], schedule)[0].clamp(-1.0, 1.0)


def _split(
    denoiser: Denoiser, x: Tensor, time: int, schedule: NoiseSchedule
) -> tuple[Tensor, Tensor]:
    """The clean image and the noise that the model sees in ``x``."""
    predicted = denoiser(x, torch.full((len(x),), time, device=x.device))
    return (x - schedule.noise[time] * predicted) / schedule.signal[time], predicted


def reconstruction_error(
    denoiser: Denoiser,
    images: Tensor,
    time: int,
    schedule: NoiseSchedule,
    *,
    draws: int = 8,
    num_steps: int = 20,
) -> Tensor:
    """Squared error of reconstructing each image, over several draws of the noise.

    The noise is always the same, so that a model before and after some training is judged on the
    same draws.

    Args:
        denoiser: The network that predicts the noise of ``[N, C, H, W]``.
        images: ``[N, C, Hh, Ww]`` in [-1, 1].
        time: How far each is noised, in 0..T-1.
        schedule: How much noise each of the T diffusion steps has.
        draws: Draws of the noise.
        num_steps: Steps of the sampler.

    Returns:
        Sum over pixels, mean over draws, ``[N]``.
    """
    generator = torch.Generator().manual_seed(0)
    stamp = torch.full((len(images),), time)
    total = torch.zeros(len(images), device=images.device)
    for _ in range(draws):
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        noisy = schedule.corrupt(images, stamp, noise)
        clean = reconstruct(denoiser, noisy, time, schedule, num_steps=num_steps)
        total += (clean - images).square().flatten(1).sum(1)
    return total / draws
