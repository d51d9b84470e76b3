"""The world-model loss and its gradients in one call of ``loss.c``.

It is ``WorldModel.loss_in_torch`` to rounding, for one task of vectors without termination, in
float32 on few threads. Gradients come with the value, where any is wanted; those of second order
go through torch.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import Metrics, Targets
from mbrl_flat.models import fused, kernels
from mbrl_flat.models.mlp import MLP

NETWORKS = ("encoder", "dynamics", "reward", "q")
PARTS = ("consistency", "reward", "value")


def usable(model: Any, batch: Batch) -> bool:
    """Whether the loss on this batch can be computed in one call."""
    plain = model.termination is None and model.tasks is None and isinstance(model.encoder, MLP)
    plain = plain and not model.is_hooked
    first = batch.obs[model.obs_names[0]]
    # Reducers of data-parallel runs wait for the gradient of every operator.
    return (
        plain and first.dtype == torch.float32 and fused.usable(batch.reward, model.q.last.weight)
    )


def evaluate(model: Any, batch: Batch, targets: Targets) -> tuple[Tensor, Metrics, Tensor]:
    """Loss, metrics and latents; see ``WorldModel.loss``."""
    inputs = _Inputs(model, batch, targets)
    return _described(*_Loss.apply(inputs, *inputs.params))  # pyright: ignore[reportGeneralTypeIssues]


@torch.no_grad()
def differentiate(model: Any, batch: Batch, targets: Targets) -> tuple[Tensor, Metrics, Tensor]:
    """The same, with what ``backward`` of the loss would add to the gradients of the parameters."""
    inputs = _Inputs(model, batch, targets)
    loss, parts, latents, _, grads = inputs.gradients([p.requires_grad for p in inputs.params])
    for param, grad in zip(inputs.params, grads, strict=True):
        if grad is not None:
            param.grad = grad if param.grad is None else param.grad + grad
    return _described(loss, parts, latents)


def _described(loss: Tensor, parts: Tensor, latents: Tensor) -> tuple[Tensor, Metrics, Tensor]:
    metrics: Metrics = {
        f"train/{name}_loss": part for name, part in zip(PARTS, parts.unbind(), strict=True)
    }
    return loss, metrics | {"train/total_loss": loss.detach()}, latents


class _Inputs:
    """What the loss depends on beside the weights."""

    def __init__(self, model: Any, batch: Batch, targets: Targets) -> None:
        self.model, self.batch, self.targets = model, batch, targets
        rows = batch.reward.flatten()[:, None]
        self.mask: Tensor | None = model.q.dropout_mask(model.q.num, rows)
        self.networks = [getattr(model, name).layers() for name in NETWORKS]
        layers = [layer for network in self.networks for layer in network]
        self.params = [p for layer in layers for p in layer[:4] if p is not None]

    def gradients(
        self, needed: Sequence[bool]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor | None]]:
        """Loss, its parts, latents, and gradients of the parameters, which share one tensor."""
        wanted = [p for p, want in zip(self.params, needed, strict=True) if want]
        flat = self.params[0].new_empty(sum(p.numel() for p in wanted))
        pieces = flat.split([p.numel() for p in wanted])
        # Gradients of matrices are written, all others are added to.
        matrices = {layer.weight.data_ptr() for net in self.networks for layer in net}
        for piece, param in zip(pieces, wanted, strict=True):
            if param.data_ptr() not in matrices:
                piece.zero_()
        views = iter(pieces)
        shaped = zip(self.params, needed, strict=True)
        grads = [next(views).view(p.shape) if want else None for p, want in shaped]
        parts, latents = self.call(grads, wants=any(needed))
        config = self.model.config
        coefs = (config.consistency_coef, config.reward_coef, config.value_coef)
        loss = torch.stack([c * part for c, part in zip(coefs, parts, strict=True)]).sum()
        return loss, parts, latents, flat, grads

    def call(self, grads: list[Tensor | None], *, wants: bool) -> tuple[Tensor, Tensor]:
        """Compute the parts ``[3]`` and latents; put gradients where they are wanted."""
        model, batch, targets, like = self.model, self.batch, self.targets, self.batch.reward
        config, (rows, horizon) = model.config, like.shape
        rest, described = iter(grads), list["ctypes.Array[ctypes.c_int64]"]()
        through = False
        for name, layers in zip(NETWORKS, self.networks, strict=True):
            own = [next(rest) for layer in layers for p in layer[:4] if p is not None]
            through |= name in ("encoder", "dynamics") and any(g is not None for g in own)
            described.append(fused.describe(layers, own))
        entries = [batch.obs[name][:, 0] for name in model.obs_names]
        weights, bins = model.step_weights(like), model.two_hot.num_bins
        latents = like.new_empty(rows, horizon + 1, model.layout.latent)
        parts = like.new_empty(3)
        drawn = [torch.cat(entries, -1), batch.action, targets["next_latent"]]
        tensors = [None if t is None else t.contiguous() for t in (*drawn, self.mask)]
        positions = [targets[f"{name}_{part}"] for name in "rq" for part in ("lower", "share")]
        tensors += [t.contiguous() for t in (*positions, weights)]
        widest = max(max(layer.weight.shape[-2:]) for net in self.networks for layer in net)
        numbers = [
            *(
                n
                for d, net in zip(described, self.networks, strict=True)
                for n in (ctypes.addressof(d), len(net))
            ),
            *(rows, horizon, latents.shape[-1], batch.action.shape[-1], model.q.num, bins, widest),
            *(int(wants), int(through)),
            *(0 if t is None else t.data_ptr() for t in (*tensors, latents, parts)),
        ]
        coefs = torch.tensor(
            [config.consistency_coef, config.reward_coef, config.value_coef, fused.EPS]
        )

        def run(work: int) -> int:
            arguments = (ctypes.c_int64 * (len(numbers) + 1))(*numbers, work)
            return kernels.call("model_loss", fused.gemm(), ctypes.addressof(arguments), coefs)

        work = like.new_empty(run(0))
        run(work.data_ptr())
        return parts, latents


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: _Inputs, *params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss, parts, latents, flat, grads = inputs.gradients(ctx.needs_input_grad[1:])
        ctx.inputs, ctx.flat, ctx.grads = inputs, flat, grads
        ctx.save_for_backward(*params)
        ctx.mark_non_differentiable(parts, latents)
        ctx.set_materialize_grads(False)
        return loss, parts, latents

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        params, grads = ctx.saved_tensors, ctx.grads
        if torch.is_grad_enabled() or grads is None:
            return None, *_of_second_order(ctx.inputs, params, ctx.needs_input_grad[1:], grad)
        # Given away: the engine may keep them as the parameters' gradients.
        ctx.grads = None
        if float(grad) != 1.0:
            ctx.flat.mul_(grad)
        return None, *grads


def _of_second_order(
    inputs: _Inputs, params: tuple[Tensor, ...], needed: tuple[bool, ...], grad: Tensor
) -> list[Tensor | None]:
    """Gradients of the same value in torch's terms, which can be differentiated in turn."""
    keeps = torch.is_grad_enabled()
    with torch.enable_grad():
        again = inputs.model.loss_in_torch(inputs.batch, inputs.targets, inputs.mask)
        wanted = [param for param, want in zip(params, needed, strict=True) if want]
        found = iter(torch.autograd.grad(again.loss, wanted, grad, create_graph=keeps))
    return [next(found) if want else None for want in needed]
