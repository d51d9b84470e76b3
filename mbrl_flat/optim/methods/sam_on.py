r"""SAM-ON: SAM that perturbs the parameters of normalisation layers and nothing else.

.. math::
    \epsilon_i = \rho \, g_i / (\|g_S\|_2 + 10^{-12}) \quad (i \in S), \qquad
    \epsilon_i = 0 \quad (i \notin S), \qquad d = \nabla L(w + \epsilon)

where S holds scale and shift of every normalisation layer. All parameters take their gradient at
the perturbed point. With ``form=asam_l2``, ``asam_linf`` or ``asam_layer`` the perturbation is
ASAM's, with ``form=fisher`` that of Fisher SAM. ``layers=other`` is the complement, a control: S is
then everything but normalisation layers.

How to choose rho:
    Five to fifteen times SAM's, because few entries share the length: the authors' example has 10
    with ``form=asam_l2``. ``form=sam`` takes less; sweep from 0.5 upwards: 7 was best on the
    perceptron with noisy labels. On TD-MPC2 0.1 was used online; on recorded
    transitions it was the best of 0.1, 0.5 and 2 (at the edge).

References:
    Mueller et al., "Normalization Layers Are All That Sharpness-Aware Minimization Needs",
    NeurIPS 2023, arXiv:2306.04226. The radius is much larger than SAM's.

Deviations from the paper:
    Layers are found by their type and the names of their classes; the authors' code looks for
    "norm" and "bn" in names of parameters, which misses some and finds others. A window of epochs,
    as in that code, is a schedule of ``rho``. The default rho is ours. The model or groups made by
    ``module_groups`` have to be given, not bare parameters.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim.groups import NORM_TYPES, selected
from mbrl_flat.optim.methods.asam import adaptive_ascent
from mbrl_flat.optim.methods.fisher_sam import fisher_ascent
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import (
    Perturbation,
    PerturbationRule,
    SelectedParams,
    SharpnessAware,
    gradient_ascent,
)

FORMS: dict[str, PerturbationRule] = {
    "sam": gradient_ascent,
    "asam_l2": partial(adaptive_ascent, eta=0.0, ball="l2"),
    "asam_linf": partial(adaptive_ascent, eta=0.0, ball="linf"),
    "asam_layer": partial(adaptive_ascent, eta=0.0, scope="layer"),
    "fisher": partial(fisher_ascent, eta=1.0),
}
"""Perturbations by the names that ``form=`` accepts."""

_KNOWN = frozenset(kind.__name__ for kind in NORM_TYPES)


@register(
    "sam_on",
    paper="arXiv:2306.04226",
    evaluations=2,
    memory=0,
    neutral={"rho": 0.0},
    needs="normalisation layers",
)
class SAMON(SharpnessAware):
    """SAM on normalisation layers.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
        form: Whose perturbation: ``sam``, ``asam_l2``, ``asam_linf``, ``asam_layer``, ``fisher``.
        layers: Perturb ``norm`` layers only, or all ``other`` parameters instead.
        norm_layers: Further normalisation layers, by the names of their classes or as in ``only``.
    """

    rho: Radius = 0.5
    form: Literal["sam", "asam_l2", "asam_linf", "asam_layer", "fisher"] = "sam"
    layers: Literal["norm", "other"] = "norm"
    norm_layers: Sequence[str] | None = None

    def __post_init__(self, params: Any, *base: Any) -> None:
        """Find the layers, and say what was found if that is not plain."""
        super().__post_init__(params, *base)
        groups = self.param_groups
        if not self._kind() & selected(groups, self.only):
            raise UserError(
                f"only={self.only} holds no parameter of layers={self.layers}, so nothing is "
                "perturbed; name layers that normalise, or leave only at null."
            )
        self._report_selection()

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """That of the form."""
        return FORMS[self.form](selection)

    def _kind(self) -> set[nn.Parameter]:
        norm = selected(self.param_groups, self._names())
        return norm if self.layers == "norm" else set(self._params()) - norm

    def _names(self) -> list[str]:
        if not self.norm_layers:
            return ["norm"]
        selected(self.param_groups, self.norm_layers)  # refuses what is no list of names
        kinds = {kind for group in self.param_groups for kind in group.get("flat_kinds", [])}
        return [*(["norm"] if "norm" in kinds else []), *self.norm_layers]

    def _chosen(self) -> dict[nn.Parameter, float]:
        kind = self._kind()
        return {param: rho for param, rho in super()._chosen().items() if param in kind}

    def _report_selection(self) -> None:
        """Warn where layers were found by their name, or vectors that scale were left out."""
        chosen = self._kind()
        found: dict[str, int] = {}
        left: dict[str, int] = {}
        for group in self.param_groups:
            rows = zip(
                group["params"],
                group.get("flat_owners", [""] * len(group["params"])),
                group.get("flat_kinds", [""] * len(group["params"])),
                strict=True,
            )
            for param, owner, kind in rows:
                if param in chosen:
                    found[owner] = found.get(owner, 0) + 1
                elif kind == "weight" and _is_vector(param):
                    left[owner] = left.get(owner, 0) + 1
        if self.layers == "norm" and (left or set(found) - _KNOWN):
            warnings.warn(
                f"sam_on perturbs {_listed(found)}, and leaves out {_listed(left)}; name further "
                "normalisation layers in norm_layers.",
                stacklevel=2,
            )


def _is_vector(param: nn.Parameter) -> bool:
    """Whether it could scale: one entry for each channel, as ``[C]`` or ``[1, 1, 1, C]``."""
    return param.ndim != 2 and param.numel() == max(param.shape, default=1)


def _listed(counts: dict[str, int]) -> str:
    words = [f"{count} tensors of {owner}" for owner, count in sorted(counts.items())]
    return ", ".join(words) if words else "no vector that could be a scale"
