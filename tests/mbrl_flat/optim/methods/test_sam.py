"""SAM against its equations on quadratics, in float64."""

import pytest

from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_one_sam_step_takes_the_gradient_at_the_end_of_the_ball(quadratic, rho):
    """arXiv:2010.01412, Eq. 2."""
    g = grad(START)

    result = one_step(quadratic, "sam", rho=rho)

    close(result, START - LR * grad(START + rho * g / g.norm()))


def test_only_every_kth_step_of_sam_is_perturbed(quadratic):
    g = grad(START)
    first = START - LR * grad(START + 0.5 * g / g.norm())

    result = one_step(quadratic, "sam", rho=0.5, every=2, steps=2)

    close(result, first - LR * grad(first))
