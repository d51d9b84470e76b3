r"""Pure functions of tensors that more than one paper uses.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", 2023, arXiv:2301.04104
    (symlog, two-hot); Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, Section 3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial, wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mbrl_flat.errors import UserError
from mbrl_flat.models import kernels


def symlog(x: Tensor) -> Tensor:
    """Compress the scale, ``sign(x) log(1 + |x|)``, elementwise, ``[...]``."""
    return torch.sign(x) * torch.log1p(x.abs())


def full_precision(x: Tensor) -> Tensor:
    """Turn half precision ``[...]`` into float32; leave everything else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def symexp(x: Tensor) -> Tensor:
    """Invert ``symlog``: ``sign(x) (exp(|x|) - 1)``, elementwise, ``[...]``."""
    return torch.sign(x) * torch.expm1(x.abs())


def two_hot_cross_entropy(logits: Tensor, position: tuple[Tensor, Tensor]) -> Tensor:
    """``-sum_i p_i log softmax(logits)_i`` for a ``p`` of two neighbouring bins.

    Args:
        logits: ``[..., num_bins]``; leading dimensions broadcast against the targets'.
        position: Lower bin and share of the bin above it, each ``[...]``.

    Returns:
        ``[...]``.
    """
    lower, share = position
    aligned = logits.shape[logits.ndim - 1 - lower.ndim : -1] == lower.shape == share.shape
    if aligned and kernels.usable(logits, share):
        reference = partial(_cross_entropy, position=position)
        return kernels.cross_entropy(logits, lower, share, reference=reference)
    return _cross_entropy(logits, position)


def _cross_entropy(logits: Tensor, position: tuple[Tensor, Tensor]) -> Tensor:
    lower, share = position
    lower = lower.expand(logits.shape[:-1])[..., None]
    log_norm = logits.logsumexp(-1)
    picked = logits.gather(-1, torch.cat([lower, lower + 1], -1))
    # In the logits' precision: lerp takes no mixed ones.
    share = share.to(logits.dtype)
    return log_norm - torch.lerp(picked[..., 0], picked[..., 1], share)


def _decode(logits: Tensor, *, bins: Tensor) -> Tensor:
    # Mixed precision would round the mean of the bins to three digits.
    with torch.autocast(logits.device.type, enabled=False):
        return symexp(torch.softmax(logits, -1) @ bins)


def _kept(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compute a tensor once; not while a compiler traces, which warns of caches."""
    cached = lru_cache(maxsize=16)(make)

    @wraps(make)
    def get(*key: Any) -> Tensor:
        return make(*key) if torch.compiler.is_compiling() else cached(*key)

    return get


@_kept
def _even_bins(support: "TwoHot", device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.linspace(support.low, support.high, support.num_bins, device=device, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class TwoHot:
    r"""A scalar as a distribution over bins that lie evenly in symlog space.

    A target ``y`` puts its mass on the two bins around ``symlog(y)`` so that their mean is exact;
    a prediction is ``symexp(sum_i softmax(logits)_i bin_i)``.

    Attributes:
        num_bins: Number of bins, at least two.
        low: Lowest bin, in symlog space.
        high: Highest bin, in symlog space.
    """

    num_bins: int = 101
    low: float = -10.0
    high: float = 10.0

    def __post_init__(self) -> None:
        if self.num_bins < 2 or self.low >= self.high:
            raise UserError(
                f"TwoHot needs num_bins >= 2 and low < high; "
                f"got num_bins={self.num_bins}, low={self.low}, high={self.high}."
            )

    @property
    def spacing(self) -> float:
        """Distance of neighbouring bins in symlog space."""
        return (self.high - self.low) / (self.num_bins - 1)

    def position(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Locate scalars between the bins.

        Args:
            target: Scalars of any shape ``[...]``.

        Returns:
            Index of the lower bin ``[...]`` (at most ``num_bins - 2``) and the share of mass on
            the bin above it ``[...]``, in [0, 1].
        """
        place = (symlog(target).clamp(self.low, self.high) - self.low) / self.spacing
        # What is not a number gets a valid index; its share passes it to the loss.
        lower = place.nan_to_num(0.0).floor().clamp(max=self.num_bins - 2)
        # Rounding puts the top edge slightly above the last bin.
        return lower.long(), (place - lower).clamp(max=1.0)

    def encode(self, target: Tensor) -> Tensor:
        """Two-hot probabilities ``[..., num_bins]`` of scalars ``[...]``."""
        lower, share = self.position(target)
        probs = target.new_zeros(*target.shape, self.num_bins)
        probs.scatter_(-1, lower[..., None], (1.0 - share)[..., None])
        probs.scatter_(-1, lower[..., None] + 1, share[..., None])
        return probs

    def bins(self, like: Tensor) -> Tensor:
        """Places of the bins in symlog space ``[num_bins]``."""
        return _even_bins(self, like.device, like.dtype)

    def decode(self, logits: Tensor) -> Tensor:
        """Expected scalars ``[...]`` of logits ``[..., num_bins]``."""
        bins = self.bins(logits)
        reference = partial(_decode, bins=bins)
        if kernels.usable(logits):
            return kernels.decode(logits, bins, reference=reference)
        return reference(logits)

    def cross_entropy(self, logits: Tensor, position: tuple[Tensor, Tensor]) -> Tensor:
        """Soft cross-entropy against two-hot targets, without building them.

        Args:
            logits: ``[..., num_bins]``; leading dimensions broadcast against the targets'.
            position: What ``position`` returned for the targets.

        Returns:
            ``-sum_i p_i log softmax(logits)_i``, shape ``[...]``.
        """
        return two_hot_cross_entropy(logits, position)


@_kept
def _symexp_bins(support: "SymexpTwoHot", device: torch.device, dtype: torch.dtype) -> Tensor:
    half = support.num_bins // 2
    # Built from the negative half, so that the bins are symmetric to the last bit.
    places = torch.linspace(-support.limit, 0.0, half + 1, dtype=torch.float64)
    negative = symexp(places)
    bins = torch.cat([negative[:-1], negative.new_zeros(1), -negative[:-1].flip(0)])
    return bins.to(device=device, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class SymexpTwoHot:
    r"""A scalar as a distribution over bins in raw space, at ``symexp`` of even points.

    Unlike ``TwoHot``, mass and mean are linear in raw space: a prediction is
    ``sum_i softmax(logits)_i bin_i``, an unbiased mean of targets of any spread.

    Attributes:
        num_bins: Number of bins, odd, at least three.
        limit: Bins span ``symexp([-limit, limit])``.

    References:
        Hafner et al., arXiv:2301.04104, "Critic learning", and the official code.
    """

    num_bins: int = 255
    limit: float = 20.0

    def __post_init__(self) -> None:
        if self.num_bins < 3 or self.num_bins % 2 == 0 or self.limit <= 0.0:
            raise UserError(
                f"SymexpTwoHot needs an odd num_bins of at least 3 and a positive limit; "
                f"got num_bins={self.num_bins}, limit={self.limit}."
            )

    def position(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Locate scalars ``[...]``: lower bin and share of the bin above, as ``TwoHot`` does."""
        bins = _symexp_bins(self, target.device, target.dtype)
        inside = target.nan_to_num(0.0).clamp(bins[0], bins[-1])
        lower = torch.searchsorted(bins, inside.contiguous(), right=True) - 1
        lower = lower.clamp(0, self.num_bins - 2)
        below, above = bins[lower], bins[lower + 1]
        # What is not a number gets a valid index; its share passes it to the loss.
        clamped = target.clamp(bins[0], bins[-1])
        return lower, (clamped - below) / (above - below)

    def decode(self, logits: Tensor) -> Tensor:
        """Expected scalars ``[...]`` of logits ``[..., num_bins]``; exactly 0 for even logits."""
        # Mirrored bins are summed in pairs: the error of one sum would be as large as the bins.
        probs = torch.softmax(logits, -1)
        half = self.num_bins // 2
        bins = _symexp_bins(self, logits.device, logits.dtype)[half + 1 :]
        return ((probs[..., half + 1 :] - probs[..., :half].flip(-1)) * bins).sum(-1)

    def cross_entropy(self, logits: Tensor, position: tuple[Tensor, Tensor]) -> Tensor:
        """Soft cross-entropy ``[...]`` of logits ``[..., num_bins]`` against two-hot targets."""
        return two_hot_cross_entropy(logits, position)


def gaussian_log_prob(noise: Tensor, log_std: Tensor, size: Tensor | None = None) -> Tensor:
    r"""Log density of ``mean + std * noise`` under its Gaussian, summed over the last dimension.

    Args:
        noise: Standard normal draws ``[..., A]``.
        log_std: Log standard deviations ``[..., A]``.
        size: How many dimensions count ``[...]``, where the others have zeros; by default all.

    Returns:
        ``sum_i (-noise_i^2 / 2 - log_std_i) - A log(2 pi) / 2``, shape ``[...]``.
    """
    count = noise.shape[-1] if size is None else size
    return (-0.5 * noise.square() - log_std).sum(-1) - 0.5 * count * math.log(2.0 * math.pi)


def tanh_log_det(action: Tensor) -> Tensor:
    """``sum_i log(max(1 - a_i^2, 0) + 1e-6)`` over ``[..., A]``: the change of volume of tanh."""
    return torch.log(F.relu(1.0 - action.square()) + 1e-6).sum(-1)


def percentile_range(x: Tensor, low: float = 5.0, high: float = 95.0) -> Tensor:
    """Distance of two percentiles of ``x`` ``[n]``, linearly interpolated, a scalar."""
    ordered = x.detach().flatten().sort().values
    return percentile(ordered, high) - percentile(ordered, low)


def percentile(ordered: Tensor, percent: float, *, kth: bool = False) -> Tensor:
    """Percentile of sorted values ``[n]``, a scalar: interpolated, or the value of that rank."""
    last = ordered.numel() - 1
    if kth:
        return ordered[min(int(percent / 100.0 * ordered.numel()), last)]
    place = percent / 100.0 * last
    floor = math.floor(place)
    return torch.lerp(ordered[floor], ordered[min(floor + 1, last)], place - floor)
