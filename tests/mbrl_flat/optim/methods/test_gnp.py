"""The penalised gradient norm against its equations on quadratics, in float64."""

import pytest

from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0])
def test_one_step_mixes_clean_and_perturbed_gradients(quadratic, alpha):
    """arXiv:2202.03599; alpha 1 is SAM and alpha 0 the base."""
    g = grad(START)
    ga = grad(START + 0.3 * g / g.norm())

    result = one_step(quadratic, "gnp", rho=0.3, alpha=alpha)

    close(result, START - LR * ((1 - alpha) * g + alpha * ga))
