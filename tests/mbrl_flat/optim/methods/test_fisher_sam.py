"""Fisher SAM against its equations on quadratics, in float64."""

import pytest

from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_one_step_perturbs_along_the_natural_gradient(quadratic, eta):
    """e = rho F^-1 g / sqrt(g F^-1 g), F = 1 + eta g^2; arXiv:2206.04920."""
    g = grad(START)
    natural = g / (1 + eta * g**2)

    result = one_step(quadratic, "fisher_sam", rho=0.3, eta=eta)

    close(result, START - LR * grad(START + 0.3 * natural / (g @ natural).sqrt()))
