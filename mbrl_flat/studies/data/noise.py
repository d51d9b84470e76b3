"""Labels that are wrong at random."""

import torch
from torch import Tensor

from mbrl_flat.settings import check_number


def symmetric_label_noise(y: Tensor, rate: float, *, num_classes: int, seed: int) -> Tensor:
    """Resample a share of the labels, uniformly over all classes, the right one included.

    So ``rate * (1 - 1/K)`` of the labels are wrong on average.

    Args:
        y: Class labels ``[N]``, whole numbers from 0.
        rate: Share that is resampled, in [0, 1]; exactly ``round(rate * N)`` labels are.
        num_classes: K.
        seed: Determines which and what.

    Returns:
        New labels ``[N]``.

    Raises:
        UserError: If ``rate`` is outside [0, 1].
    """
    check_number("The rate of label noise", rate, "[0, 1]")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(y), generator=generator)[: round(rate * len(y))]
    noisy = y.clone()
    noisy[chosen] = torch.randint(num_classes, (len(chosen),), generator=generator)
    return noisy
