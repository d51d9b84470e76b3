"""GSAM against its equations on quadratics, in float64."""

import pytest

from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_one_gsam_step_climbs_across_the_perturbed_gradient(quadratic, alpha):
    """arXiv:2203.08065, Algorithm 1."""
    g = grad(START)
    ga = grad(START + 0.3 * g / g.norm())
    across = g - (g @ ga) / (ga @ ga) * ga

    result = one_step(quadratic, "gsam", rho=0.3, alpha=alpha)

    close(result, START - LR * (ga - alpha * across))
