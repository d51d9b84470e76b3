"""Perturbations of the weights: how long, in which direction, and how they come back."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

from mbrl_flat.optim.norms import joint_norm

SAMPLE = 2**12
"""Most entries of one tensor by which perturbations of different steps are compared."""
RUN = 16
"""Neighbouring entries that are taken together: what a CPU fetches at a time."""


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """A perturbation ``scale_i * direction_i`` of several parameters; the product is not formed.

    Attributes:
        directions: One for each parameter: gradients, momenta or tensors of their own.
        scales: One factor for each.
        length: Norm of the directions taken together, if it is known.
    """

    directions: list[Tensor]
    scales: list[float]
    length: float | None = None

    @classmethod
    def of(cls, directions: Sequence[Tensor]) -> Self:
        """The directions as they are."""
        return cls(directions=list(directions), scales=[1.0] * len(directions))

    def __neg__(self) -> "Perturbation":
        """The opposite perturbation."""
        opposite = [-scale for scale in self.scales]
        return Perturbation(directions=self.directions, scales=opposite, length=self.length)

    def norm(self) -> Tensor:
        """Euclidean norm over all parameters, a scalar."""
        if len(set(self.scales)) > 1:
            return joint_norm([torch.linalg.vector_norm(t) for t in self.tensors()])
        scale = abs(self.scales[0]) if self.scales else 0.0
        if self.length is None:
            return scale * joint_norm(self.directions)
        return torch.tensor(scale * self.length, device=self.directions[0].device)

    def tensors(self) -> Iterator[Tensor]:
        """The perturbations themselves, one at a time."""
        for direction, scale in zip(self.directions, self.scales, strict=True):
            yield direction * scale

    @torch.no_grad()
    def add_to(self, params: Sequence[Tensor]) -> None:
        """Perturb the parameters, in place."""
        for scale in dict.fromkeys(self.scales):
            at = [i for i, other in enumerate(self.scales) if other == scale]
            directions = [self.directions[i] for i in at]
            torch._foreach_add_([params[i] for i in at], directions, alpha=scale)

    def sample(self) -> list[Tensor]:
        """Some entries of each perturbation, to compare it with others.

        Every k-th run of ``RUN`` entries, k prime so that all columns of a matrix have their turn;
        all entries of a tensor that has no more than ``SAMPLE``.

        Returns:
            One vector for each, so weighted that inner products stand for those over all entries.
        """
        pairs = zip(self.directions, self.scales, strict=True)
        return [_some(direction, scale) for direction, scale in pairs]


def _some(tensor: Tensor, scale: float) -> Tensor:
    size = tensor.numel()
    flat = tensor.detach().reshape(-1)
    if size <= SAMPLE:
        return flat * scale
    period = RUN * _stride(size)
    runs = flat[: size - size % period].view(-1, period)[:, :RUN].reshape(-1)
    return runs.mul_(scale * math.sqrt(size / runs.numel()))


@lru_cache(maxsize=4096)
def _stride(size: int) -> int:
    """Smallest prime that leaves no more than ``SAMPLE`` of ``size`` entries."""
    k = max(2, -(-size // SAMPLE))
    while any(k % d == 0 for d in range(2, math.isqrt(k) + 1)):
        k += 1
    return k


def cosine(a: Mapping[Tensor, Tensor], b: Mapping[Tensor, Tensor]) -> Tensor:
    """Cosine between two perturbations.

    Args:
        a: What was sampled of each parameter's perturbation.
        b: The same for another perturbation; a parameter that it lacks counts as zero there.

    Returns:
        A scalar; zero if no parameter is in both.
    """
    both = [p for p in a if p in b and a[p].dtype == b[p].dtype]
    if not both:
        return torch.zeros(())
    scale = (_squares(a.values()) * _squares(b.values())).sqrt()
    product = torch.stack([a[param].dot(b[param]) for param in both]).sum()
    return torch.where(scale > 0, product / scale, scale)


def _squares(vectors: Iterable[Tensor]) -> Tensor:
    return torch.stack([vector.dot(vector) for vector in vectors]).sum()


class WeightBackup:
    """Space for weights while they are perturbed, kept so that it is allocated once."""

    def __init__(self) -> None:
        self._space: dict[Tensor, Tensor] = {}

    @contextmanager
    def restored(self, params: Sequence[Tensor]) -> Iterator[None]:
        """Let the body change ``params``; the old values come back exactly.

        They are copied back into the same storage, also when the body raises: subtracting what was
        added would leave rounding errors behind.
        """
        params = list(params)
        saved = [self._space_for(param) for param in params]
        with torch.no_grad():
            torch._foreach_copy_(saved, params)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(params, saved)

    def _space_for(self, param: Tensor) -> Tensor:
        space = self._space.get(param)
        # A module may change the type, shape or device of a parameter in place.
        if space is None or (space.dtype, space.shape, space.device) != (
            param.dtype,
            param.shape,
            param.device,
        ):
            space = self._space[param] = torch.empty_like(param).detach()
        return space

    @contextmanager
    def perturbed(self, params: Sequence[Tensor], perturbation: Perturbation) -> Iterator[None]:
        """Perturb ``params`` for the length of the body; they come back as in ``restored``."""
        with self.restored(params):
            perturbation.add_to(params)
            # Gradients that nobody else needs make room for those of the body.
            del perturbation
            yield

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles begin empty."""
        return (WeightBackup, ())


@contextmanager
def added_and_subtracted(params: Sequence[Tensor], perturbation: Perturbation) -> Iterator[None]:
    """Perturb ``params`` for the length of the body, without a copy of them.

    They come back up to one rounding of the perturbed weights: what was added is subtracted.
    """
    params = list(params)
    perturbation.add_to(params)
    try:
        yield
    finally:
        (-perturbation).add_to(params)
