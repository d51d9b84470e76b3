"""The sharpness of a trained model's loss on a fixed set of examples."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mbrl_flat.diagnostics.lanczos import Product, largest_eigenvalue
from mbrl_flat.diagnostics.sharpness import loss_regions, norms, sam_gap
from mbrl_flat.interfaces import ProbeLoss

RHO = 0.05
"""Radius of ``sam_gap``."""


def top_eigenvalue(product: Product, like: Tensor) -> float:
    """Largest eigenvalue of a matrix of the size of ``like`` ``[n]``, by at most 20 products."""
    generator = torch.Generator().manual_seed(0)
    return largest_eigenvalue(product, like, generator=generator, iterations=20, tolerance=1e-2)


def measure_sharpness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> Mapping[str, float]:
    """Measure the loss of all examples as a function of all weights, in evaluation mode.

    BatchNorm then normalises by its running statistics, which are held fixed.

    Args:
        model: Left in the mode in which it is found.
        x: Inputs ``[N, ...]``.
        y: Labels or targets.
        loss_of: Mean loss of outputs and ``y``.

    Returns:
        ``loss``, ``lambda_max``, ``sam_gap``, ``first_order``, ``grad_norm`` and ``param_norm``.
    """
    was_training = model.training
    model.eval()
    params = [p for p in model.parameters() if p.requires_grad]
    probe = ProbeLoss(loss=lambda: loss_of(model(x), y), modules={"": params})
    (region,) = loss_regions(probe, per_module=False)
    measured = {
        "loss": region.value,
        "lambda_max": top_eigenvalue(region.product, region.gradient),
        "sam_gap": sam_gap(region, rho=RHO),
        **norms(region, rho=RHO),
    }
    model.train(was_training)
    return measured
