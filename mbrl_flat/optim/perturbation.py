"""Perturbations of the weights: how long, in which direction, and how they come back."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

from mbrl_flat.models import kernels
from mbrl_flat.optim.norms import fast_dot, joint_norm

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
    def add_to(self, params: Sequence[Tensor], *, saved: Sequence[Tensor] | None = None) -> None:
        """Perturb the parameters, in place; what they were goes to ``saved``."""
        if kernels.usable_whole(*params, *self.directions, *(saved or ())):
            where = [None if t is None else kernels.addresses(t) for t in (self.directions, saved)]
            sizes = kernels.integers([param.numel() for param in params])
            scales = kernels.floats(self.scales)
            kernels.call(
                "vectors_add", kernels.addresses(params), *where, sizes, scales, len(params)
            )
            torch.autograd.graph.increment_version(params)
            return
        if saved is not None:
            torch._foreach_copy_(list(saved), list(params))
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
        if not kernels.usable_whole(*self.directions):
            pairs = zip(self.directions, self.scales, strict=True)
            return [_some(direction, scale) for direction, scale in pairs]
        forms = [_form(direction.numel()) for direction in self.directions]
        sizes = [size for size, _, _ in forms]
        scales = [s * form[2] for s, form in zip(self.scales, forms, strict=True)]
        joined = torch.empty(sum(sizes), dtype=torch.float32)
        described = (
            *(kernels.addresses(self.directions), kernels.integers(sizes)),
            *(kernels.integers([period for _, period, _ in forms]), kernels.floats(scales)),
        )
        kernels.call("vectors_sample", *described, len(sizes), RUN, joined)
        return list(joined.split(sizes))


def _some(tensor: Tensor, scale: float) -> Tensor:
    flat = tensor.detach().reshape(-1)
    size, period, weight = _form(len(flat))
    if size == len(flat):
        return flat * scale
    runs = flat[: size // RUN * period].view(-1, period)[:, :RUN].reshape(-1)
    return runs.mul_(scale * weight)


@lru_cache(maxsize=4096)
def _form(size: int) -> tuple[int, int, float]:
    """How a tensor of ``size`` entries is sampled: how many, from how many to how many, weight."""
    if size <= SAMPLE:
        return size, RUN, 1.0
    k = max(2, -(-size // SAMPLE))
    while any(k % d == 0 for d in range(2, math.isqrt(k) + 1)):
        k += 1
    sampled = size // (RUN * k) * RUN
    return sampled, RUN * k, math.sqrt(size / sampled)


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
    scale = (_dot(a.values(), a.values()) * _dot(b.values(), b.values())).sqrt()
    product = _dot([a[param] for param in both], [b[param] for param in both])
    return torch.where(scale > 0, product / scale, scale)


def _dot(a: Collection[Tensor], b: Collection[Tensor]) -> Tensor:
    if kernels.usable_whole(*a, *b):
        return torch.tensor(fast_dot(list(a), list(b)))
    return torch.stack([x.dot(y) for x, y in zip(a, b, strict=True)]).sum()


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
        with _put_back(params, saved):
            yield

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
        params = list(params)
        saved = [self._space_for(param) for param in params]
        perturbation.add_to(params, saved=saved)
        # Gradients that nobody else needs make room for those of the body.
        del perturbation
        with _put_back(params, saved):
            yield

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles begin empty."""
        return (WeightBackup, ())


@contextmanager
def _put_back(params: list[Tensor], saved: list[Tensor]) -> Iterator[None]:
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(params, saved)


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
