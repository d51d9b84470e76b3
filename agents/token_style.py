"""How STORM and TWISTER differ in building their networks."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from mbrl_flat.models.strided_conv import NormName


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an agent builds its networks.

    Attributes:
        agent: Name, for messages.
        centre: What is taken off the pixels, which lie in [0, 1].
        norm: Normalisation of the convolutions.
        activation: Of convolutions and mixer.
        eps: Of the mixer's normalisations.
        head: Makes a head from its numbers of inputs and outputs.
        heads_see_latent: Whether reward and continuation depend on the latent too.
        learned_positions: Number of learned positions; 0 for relative ones.
        act_on: Entry of a state that the policy sees beside the output.
    """

    agent: str
    centre: float
    norm: NormName
    activation: Callable[[], nn.Module]
    eps: float
    head: Callable[[int, int], nn.Module]
    heads_see_latent: bool
    learned_positions: int = 0
    act_on: str = "latent"
