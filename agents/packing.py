"""States of a world model as one vector each, for whoever compares or stores them."""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from mbrl_flat.agents.imagination import ModelState


class Packing:
    """Joins the entries of a state, in the order given, and takes them apart again.

    Args:
        shapes: Shape of each entry of one row.
        masks: Names of the entries that are boolean.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], masks: frozenset[str]) -> None:
        self.shapes, self.masks = dict(shapes), masks

    def pack(self, state: ModelState) -> Tensor:
        """Join ``[..., *shape]`` of every entry to ``[..., D]``, float32."""
        lead = state[next(iter(self.shapes))].ndim - len(next(iter(self.shapes.values())))
        return torch.cat([state[name].flatten(lead).float() for name in self.shapes], -1)

    def unpack(self, latent: Tensor) -> ModelState:
        """Invert ``pack``: ``[..., D]`` to a state ``[..., ...]``."""
        pieces = latent.split([prod(shape) for shape in self.shapes.values()], -1)
        named = zip(self.shapes.items(), pieces, strict=True)
        state = {name: piece.unflatten(-1, shape) for (name, shape), piece in named}
        return {name: x > 0.5 if name in self.masks else x for name, x in state.items()}
