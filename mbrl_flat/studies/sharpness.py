"""The sharpness of a trained model's loss on a fixed set of examples."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mbrl_flat.diagnostics.lanczos import lanczos, start_vector
from mbrl_flat.diagnostics.sharpness import loss_regions, norms, sam_gap
from mbrl_flat.interfaces import ProbeLoss


def measure_sharpness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    rho: float = 0.05,
    iterations: int = 20,
    seed: int = 0,
) -> Mapping[str, float]:
    """Measure the loss of all examples as a function of all weights, in evaluation mode.

    BatchNorm then normalises by its running statistics, which are held fixed.

    Args:
        model: Left in the mode in which it is found.
        x: Inputs ``[N, ...]``.
        y: Labels or targets.
        loss_of: Mean loss of outputs and ``y``.
        rho: Radius of ``sam_gap``.
        iterations: Most iterations of Lanczos.
        seed: Determines its start vector.

    Returns:
        ``loss``, ``lambda_max``, ``sam_gap``, ``first_order``, ``grad_norm`` and ``param_norm``.
    """
    was_training = model.training
    model.eval()
    params = [p for p in model.parameters() if p.requires_grad]
    probe = ProbeLoss(loss=lambda: loss_of(model(x), y), modules={"": params})
    (region,) = loss_regions(probe, per_module=False)
    generator = torch.Generator().manual_seed(seed)
    start = start_vector(region.gradient.numel(), generator=generator).to(region.gradient)
    spectrum = lanczos(region.product, start, max_iterations=iterations, tolerance=1e-2)
    measured = {
        "loss": region.value,
        "lambda_max": spectrum.lambda_max,
        "sam_gap": sam_gap(region, rho=rho),
        **norms(region, rho=rho),
    }
    model.train(was_training)
    return measured
