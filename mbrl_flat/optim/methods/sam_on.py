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
    with ``form=asam_l2``. ``form=sam`` takes less; sweep from 0.5 upwards.

References:
    Mueller et al., "Normalization Layers Are All That Sharpness-Aware Minimization Needs",
    NeurIPS 2023, arXiv:2306.04226. The radius is much larger than SAM's.

Deviations from the paper:
    Layers are found by their type; the authors' code looks for "norm" and "bn" in names, which
    misses some and catches others. A window of epochs, as in that code, is a schedule of ``rho``.
    The default rho is ours. The model or groups made by ``module_groups`` have to be given, not
    bare parameters.
"""

from collections.abc import Sequence
from typing import Literal, Unpack

from torch import nn

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim.base import BaseFactory, Params, StepOptions
from mbrl_flat.optim.groups import selected
from mbrl_flat.optim.methods.asam import AdaptiveAscent
from mbrl_flat.optim.methods.fisher_sam import FisherAscent
from mbrl_flat.optim.methods.sam import GradientAscent
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import PerturbationRule, SharpnessAware

FORMS: dict[str, PerturbationRule] = {
    "sam": GradientAscent(),
    "asam_l2": AdaptiveAscent(eta=0.0, ball="l2"),
    "asam_linf": AdaptiveAscent(eta=0.0, ball="linf"),
    "asam_layer": AdaptiveAscent(eta=0.0, scope="layer"),
    "fisher": FisherAscent(eta=1.0),
}
"""Perturbations by the names that ``form=`` accepts."""


class SAMON(SharpnessAware):
    """SharpnessAware on the layers of a kind; ``only`` chooses among them."""

    layers: Sequence[str] = ()

    def _chosen(self) -> dict[nn.Parameter, float]:
        kind = selected(self.param_groups, self.layers)
        return {param: rho for param, rho in super()._chosen().items() if param in kind}


@register(
    "sam_on",
    paper="arXiv:2306.04226",
    evaluations=2,
    memory=0,
    neutral={"rho": 0.0},
    needs="normalisation layers",
)
def sam_on(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.5,
    form: str = "sam",
    layers: Literal["norm", "other"] = "norm",
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> SharpnessAware:
    """SAM on normalisation layers; see the module for the equations.

    Args:
        params: Groups that know the kinds of their parameters, or the model.
        base: Makes the optimizer that takes the final gradient.
        rho: Radius.
        form: ``sam``, ``asam_l2``, ``asam_linf``, ``asam_layer`` or ``fisher``.
        layers: Perturb ``norm`` layers only, or all ``other`` parameters instead.
        every: Perturb in every k-th step.
        only: Which of those layers are perturbed; by default all.
        settings: See ``StepOptions``.

    Returns:
        The optimizer.

    Raises:
        UnknownNameError: If there is no such form or choice of layers, or no normalisation layer.
        UserError: If ``only`` names no such layer.
    """
    if form not in FORMS:
        raise UnknownNameError("form", form, FORMS, where="sam_on")
    if layers not in ("norm", "other"):
        raise UnknownNameError("choice of layers", layers, ["norm", "other"], where="sam_on")
    kind = ["norm"] if layers == "norm" else ["-norm"]
    optimizer = SAMON(
        params,
        base=base,
        perturbation=FORMS[form],
        rho=rho,
        every=every,
        only=only,
        **settings,
    )
    optimizer.layers = kind
    groups = optimizer.param_groups
    if not selected(groups, kind) & selected(groups, only):
        raise UserError(f"only={only} holds no parameter of layers={layers}, so nothing moves.")
    return optimizer
