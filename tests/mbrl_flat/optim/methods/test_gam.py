"""GAM against its equations on quadratics, in float64."""

import torch

from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


def test_one_gam_step_combines_four_gradients(quadratic):
    """arXiv:2303.03108, accelerated."""
    rho, small, gamma = 0.3, 0.1, 0.2
    g0 = grad(START)
    g1 = grad(START + small * g0 / g0.norm())
    h = g1 - g0
    far = START + rho * h / h.norm()
    g2 = grad(far)
    g3 = grad(far + small * g2 / g2.norm())
    descent, penalty = 0.6 * g1 + 0.4 * g3, g0 + 0.5 * g2
    across = penalty - (penalty @ descent) / (descent @ descent) * descent

    result = one_step(quadratic, "gam", rho=rho, inner_rho=small, gamma=gamma)

    close(result, START - LR * (descent - gamma * across))


def test_where_the_radii_vanish_a_step_is_as_long_as_a_gradient_step(quadratic):
    """As in the authors' recipes, the weights of the two descent gradients sum to 1."""
    result = one_step(quadratic, "gam", rho=1e-8, inner_rho=1e-8)

    torch.testing.assert_close(result, START - LR * grad(START), rtol=1e-6, atol=0)
