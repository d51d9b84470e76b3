"""VaSSO against its equations on quadratics, in float64."""

from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


def test_two_vasso_steps_displace_along_the_moving_average(quadratic):
    """arXiv:2309.15639: m = (1 - theta) m + theta g."""
    rho, theta = 0.3, 0.4
    m = grad(START)
    first = START - LR * grad(START + rho * m / m.norm())
    m = (1 - theta) * m + theta * grad(first)

    result = one_step(quadratic, "vasso", rho=rho, theta=theta, steps=2)

    close(result, first - LR * grad(first + rho * m / m.norm()))


def test_vasso_with_theta_one_is_sam(quadratic):
    results = [
        one_step(quadratic, "vasso", rho=0.3, theta=1.0, steps=5),
        one_step(quadratic, "sam", rho=0.3, steps=5),
    ]

    close(*results)
