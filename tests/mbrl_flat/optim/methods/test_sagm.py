"""SAGM against its equations on quadratics, in float64."""

from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


def test_one_sagm_step_averages_the_clean_and_the_perturbed_gradient(quadratic):
    """arXiv:2303.10353."""
    rho, alpha = 0.3, 0.02
    g = grad(START)
    ga = grad(START + (rho / g.norm() - alpha) * g)

    result = one_step(quadratic, "sagm", rho=rho, alpha=alpha)

    close(result, START - LR * (g + ga) / 2)
