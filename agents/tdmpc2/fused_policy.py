"""The policy's actions and their values in one call of ``policy.c``, and gradients in another.

They are those of torch's operators to rounding, for one task of continuous actions, in float32 on
few threads. The draws are the same, in the same order.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from mbrl_flat.agents.tdmpc2.policy import Policy, PolicySample, draw_noise
from mbrl_flat.models import fused, kernels
from mbrl_flat.specs import Continuous


def usable(model: Any, policy: Policy, latents: Tensor) -> bool:
    """Whether the policy can learn on latents ``[B, T, D]`` in these calls."""
    plain = not model.layout.embedding and isinstance(policy.space, Continuous)
    plain = plain and not model.is_hooked and not policy.is_hooked
    return plain and latents.numel() > 0 and fused.usable(latents, model.q.last.weight)


class FusedPolicy:
    """Actions of the policy at latents, their values, then gradients.

    Args:
        model: World model, whose Q-functions value the actions.
        policy: The policy.
        latents: ``[B, T, D]``.
        heads: The two Q-functions ``[2]``.
        target: Take the smaller value of the target Q-functions, instead of the mean of two.

    Attributes:
        sample: What the policy drew, ``[B, T, ...]``.
        value: What that is worth ``[B, T]``.
    """

    def __init__(
        self, model: Any, policy: Policy, latents: Tensor, heads: Tensor, *, target: bool = False
    ) -> None:
        rows, size = latents.shape[:-1], policy.space.size
        noise, network = draw_noise(policy, latents), model.target_q if target else model.q
        mask = network.dropout_mask(2, latents.flatten(0, -2))
        self.sample = PolicySample(
            noise.new_empty(noise.shape), noise.new_empty(rows), noise.new_empty(rows)
        )
        self.value = noise.new_empty(rows)
        self._layers = policy.net.layers()
        q, bins = network.layers(), model.two_hot.bins(latents)
        self._q = fused.describe(q)
        self._reals = [policy.low, policy.high, fused.EPS]
        steps = torch.arange(rows[1], dtype=latents.dtype)
        read = (heads, latents, noise, mask, bins, model.config.temporal_decay**steps)
        tensors = [None if t is None else t.contiguous() for t in (*read, *self.sample, self.value)]
        widest = max(max(layer.weight.shape[-2:]) for layer in (*self._layers, *q))
        self._numbers = [
            *(len(self._layers), ctypes.addressof(self._q), len(q)),
            *(*rows, latents.shape[-1], size, len(bins), widest, int(target)),
            *(0 if t is None else t.data_ptr() for t in tensors),
        ]
        self._held = tensors
        described = fused.describe(self._layers)
        self._work = noise.new_empty(self._call("policy_forward", described, 0))
        self._call("policy_forward", described, self._work.data_ptr())

    def backward(self, entropy_coef: float, scale: Tensor) -> None:
        """Put the gradient of ``policy_loss`` into the policy's parameters, once."""
        params = [p for layer in self._layers for p in layer[:4] if p is not None]
        flat = params[0].new_zeros(sum(p.numel() for p in params))
        parts = flat.split([p.numel() for p in params])
        grads = [part.view_as(p) for part, p in zip(parts, params, strict=True)]
        self._reals += [entropy_coef, 1.0 / float(scale)]
        described = fused.describe(self._layers, grads)
        self._call("policy_backward", described, self._work.data_ptr())
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad

    def _call(self, name: str, policy: "ctypes.Array[ctypes.c_int64]", work: int) -> int:
        numbers = (ctypes.addressof(policy), *self._numbers, work)
        arguments = (ctypes.c_int64 * len(numbers))(*numbers)
        reals = torch.tensor(self._reals)
        return kernels.call(name, fused.gemm(), ctypes.addressof(arguments), reals)
