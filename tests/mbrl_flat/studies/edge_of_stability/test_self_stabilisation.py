"""The two-variable model: fixed point, damping, and the transition that weight decay makes."""

import numpy as np
import pytest

from mbrl_flat.errors import UserError
from mbrl_flat.studies.edge_of_stability.self_stabilisation import SelfStabilisation


def test_the_fixed_point_flips_sign_and_stays():
    model = SelfStabilisation(lr=0.1, sharpening=0.5, curvature=4.0)

    path = model.run(offset=model.amplitude, excess=0.0, steps=50)

    np.testing.assert_allclose(model.amplitude, 0.5)
    np.testing.assert_allclose(np.abs(path[:, 0]), 0.5, rtol=1e-12)
    np.testing.assert_allclose(path[:, 1], 0.0, atol=1e-13)
    assert (np.sign(path[1:, 0]) == -np.sign(path[:-1, 0])).all()


def test_one_step_by_hand():
    model = SelfStabilisation(lr=0.1, sharpening=0.5, curvature=4.0, weight_decay=0.2, kappa=1.5)

    path = model.run(offset=0.3, excess=-1.0, steps=1)

    np.testing.assert_allclose(path[1, 0], -(1.0 + 0.1 * (-1.0 + 0.2)) * 0.3, rtol=1e-14)
    np.testing.assert_allclose(path[1, 1], -1.0 + 0.1 * (0.5 - 0.3 - 2.0 * 0.09), rtol=1e-14)


def test_weight_decay_damps_the_oscillation_below_the_transition():
    free = SelfStabilisation(lr=0.1, sharpening=0.5, curvature=4.0)
    decayed = SelfStabilisation(lr=0.1, sharpening=0.5, curvature=4.0, weight_decay=0.2, kappa=1.5)

    np.testing.assert_allclose(decayed.amplitude / free.amplitude, np.sqrt(0.2 / 0.5))


@pytest.mark.parametrize(("factor", "reaches"), [(0.9, True), (1.1, False)])
def test_the_sharpness_reaches_the_edge_only_below_the_critical_weight_decay(factor, reaches):
    free = SelfStabilisation(lr=0.1, sharpening=0.5, curvature=4.0, kappa=2.0)
    decayed = SelfStabilisation(
        lr=0.1,
        sharpening=0.5,
        curvature=4.0,
        kappa=2.0,
        weight_decay=factor * free.critical_weight_decay,
    )

    path = decayed.run(offset=1e-6, excess=-1.0, steps=2000)

    np.testing.assert_allclose(free.critical_weight_decay, 0.25)
    assert (path[:, 1].max() > 0.0) == reaches


def test_constants_out_of_range_are_refused():
    with pytest.raises(UserError, match="must be positive"):
        SelfStabilisation(lr=0.0, sharpening=1.0, curvature=1.0)
