"""StableSAM against its equation on a quadratic, in float64."""

from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


def test_a_step_has_the_direction_of_sam_and_the_length_of_gradient_descent(quadratic):
    """arXiv:2401.07250: d = |g| / |g'| g'."""
    rho = 0.3
    g = grad(START)
    perturbed = grad(START + rho * g / g.norm())

    result = one_step(quadratic, "stable_sam", rho=rho)

    close(result, START - LR * perturbed * g.norm() / perturbed.norm())
    close((result - START).norm(), LR * g.norm())
