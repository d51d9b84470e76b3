"""A whole plan in one call of ``plan.c``: between operators a small model spends most of its time.

It is the search of ``planner.py`` and ``mppi.py`` to rounding, for one task of continuous actions
without termination, in float32 on few threads. Anything else goes through torch there.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from mbrl_flat.models import fused, kernels
from mbrl_flat.planning.mppi import Fit
from mbrl_flat.specs import Continuous


def usable(planner: Any, latent: Tensor) -> bool:
    """Whether plans from latents ``[N, D]`` can be searched in one call."""
    model = planner.model
    plain = model.termination is None and not model.layout.embedding and not model.training
    boxed = isinstance(planner.policy.space, Continuous)
    return plain and boxed and not model.is_hooked and fused.usable(latent, model.q.last.weight)


@torch.no_grad()
def search(planner: Any, latent: Tensor, previous_mean: Tensor, noise: Any) -> Fit:
    """Fit a Gaussian to the best plans; see ``LatentPlanner.plan`` for the arguments."""
    model, policy, config = planner.model, planner.policy, planner.config
    num, (horizon, size) = latent.shape[0], previous_mean.shape[1:]
    mean = torch.cat([previous_mean[:, 1:], torch.zeros_like(previous_mean[:, :1])], 1)
    elites = latent.new_empty(num, config.num_elites, horizon, size)
    values, score = elites.new_empty(2, num, config.num_elites)
    fit = Fit(mean, torch.full_like(mean, config.max_std), elites, values, score)
    networks = [net.layers() for net in (model.dynamics, model.reward, policy.net, model.q)]
    described = [fused.describe(layers) for layers in networks]
    widest = max(max(layer.weight.shape[-2:]) for layers in networks for layer in layers)
    bins = model.two_hot.bins(latent)
    drawn = [noise.prior, noise.search.samples, noise.final_action, noise.heads]
    inputs = [tensor.contiguous() for tensor in (bins, latent, *drawn)]
    addresses = [ctypes.addressof(layers) for layers in described]
    numbers = [
        *(v for pair in zip(addresses, map(len, networks), strict=True) for v in pair),
        *(num, config.num_samples, config.num_prior, horizon, latent.shape[1], size),
        *(config.num_elites, config.iterations, len(bins), widest),
        *(tensor.data_ptr() for tensor in (*inputs, *fit)),
    ]
    limits = (config.min_std, config.max_std, policy.low, policy.high)
    reals = torch.tensor([model.discount, config.temperature, *limits, fused.EPS])

    def plan(work: int) -> int:
        arguments = (ctypes.c_int64 * (len(numbers) + 1))(*numbers, work)
        return kernels.call("plan", fused.gemm(), ctypes.addressof(arguments), reals)

    work = latent.new_empty(plan(0))
    plan(work.data_ptr())
    return fit
