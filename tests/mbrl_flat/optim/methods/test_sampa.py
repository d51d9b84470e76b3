"""SAMPa against its equations on a quadratic, in float64."""

from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


def test_two_steps_take_gradients_at_sams_point_and_ahead(quadratic):
    """arXiv:2410.10683, with y_0 = w_0."""
    rho, lam = 0.3, 0.2
    w, at_y = START, grad(START)
    for _ in range(2):
        far = w + rho * at_y / at_y.norm()
        ahead = w - LR * at_y
        at_y = grad(ahead)
        w = w - LR * ((1.0 - lam) * grad(far) + lam * at_y)

    result = one_step(quadratic, "sampa", rho=rho, ahead_weight=lam, steps=2)

    close(result, w)
