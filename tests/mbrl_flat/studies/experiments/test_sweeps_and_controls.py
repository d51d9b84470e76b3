"""Choice by validation, controls, and adversaries, each against its definition."""

from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim import module_groups
from mbrl_flat.optim.sharpness_aware import RuleSAM, gradient_ascent
from mbrl_flat.studies.experiments.adversaries import Adversaries
from mbrl_flat.studies.experiments.methods import method_optimizer
from mbrl_flat.studies.experiments.radius_search import RadiusSearch
from mbrl_flat.studies.framework import TrialRow, TrialRows
from mbrl_flat.studies.framework.rows import DIVERGED
from mbrl_flat.studies.models import Perceptron

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X[:, 0] > 0


def sweep(**settings):
    given = {"radii": {"sam": [0.1, 0.2]}, "tries": 2, "seeds": 3, "common": {}}
    return RadiusSearch(**(given | settings))


def row(rho, seed, validation, test=0.0):
    return TrialRow(
        method="sam", rho=rho, seed=seed, validation_accuracy=validation, test_accuracy=test
    )


def test_the_choice_rests_on_validation_and_the_first_stage_alone():
    rows = [row(0.1, 0, 90, test=1), row(0.1, 1, 80, test=1), row(0.2, 0, 70), row(0.2, 1, 99)]
    later = [row(0.2, 2, 0.0), row(0.1, 2, 100.0, test=100)]

    assert sweep().chosen(TrialRows(rows), "sam") == 0.1
    assert sweep().chosen(TrialRows(rows + later), "sam") == 0.1


def test_the_second_stage_is_the_chosen_radius_with_the_other_seeds():
    rows = [row(0.1, 0, 50), row(0.1, 1, 50), row(0.2, 0, 60), row(0.2, 1, 60)]

    assert [(c["rho"], c["seed"]) for c in sweep().cells(TrialRows())] == [
        (0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1),
    ]  # fmt: skip
    assert [(c["rho"], c["seed"]) for c in sweep().cells(TrialRows(rows))][4:] == [(0.2, 2)]


def test_of_equal_radii_the_smaller_is_chosen_and_one_that_diverges_is_not():
    equal = [row(0.1, 0, 50), row(0.1, 1, 50), row(0.2, 0, 50), row(0.2, 1, 50)]
    diverging = [
        row(0.1, 0, 99),
        TrialRow(method="sam", rho=0.1, seed=1, **{DIVERGED: 4}),
        *equal[2:],
    ]

    assert sweep().chosen(TrialRows(equal), "sam") == 0.1
    assert sweep().chosen(TrialRows(diverging), "sam") == 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tries": 4}, "tries=4"),
        ({"tries": 0}, "tries must be at least 1"),
        ({"radii": {"sam": []}}, "sam has no"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        sweep(**settings)


def model():
    torch.manual_seed(0)
    return Perceptron(4, (8,), 2, norm="layer").double()


def steps(optimizer, network, count=3):
    for _ in range(count):

        def closure():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(X), Y.long())
            loss.backward()
            return loss

        optimizer.step(closure)
    return [p.detach().clone() for p in network.parameters()]


def displacements(optimizer, network, x, y):
    """Where the evaluations of one step are, relative to the weights before it."""
    before = [p.detach().clone() for p in network.parameters()]
    seen = []

    def closure():
        pairs = zip(network.parameters(), before, strict=True)
        seen.append([p.detach() - b for p, b in pairs])
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return seen


def test_flipped_msam_is_displaced_along_the_momentum():
    ours, theirs = model(), model()
    flipped = method_optimizer("msam_flipped", ours, base=SGD, rho=0.5)
    msam = method_optimizer("msam", theirs, base=SGD, rho=0.5)
    # The first step has no momentum, so both stand at the same point in the second.
    steps(flipped, ours, 1)
    steps(msam, theirs, 1)

    (along,), (against,) = (
        displacements(optimizer, network, X, Y.long())
        for optimizer, network in ((flipped, ours), (msam, theirs))
    )

    assert float(torch.cat([s.flatten() for s in along]).norm()) == pytest.approx(0.5)
    torch.testing.assert_close(along, [-shift for shift in against], rtol=0, atol=1e-12)


def test_a_random_mask_displaces_one_fixed_set_of_the_size_of_the_norm_layers_with_sam_s_length():
    network = Perceptron(64, (128, 128), 10, norm="batch").double()
    optimizer = method_optimizer("random_mask", network, base=SGD, rho=0.5)
    x, y = torch.randn(16, 64, dtype=torch.float64), torch.randint(10, (16,))

    first, second = (
        torch.cat([s.flatten() for s in displacements(optimizer, network, x, y)[1]])
        for _ in range(2)
    )

    chosen = optimizer.rule.share * sum(p.numel() for p in network.parameters())
    assert chosen == pytest.approx(512)
    assert float(first.norm()) == pytest.approx(0.5, rel=1e-9)
    masks = [torch.cat([optimizer.method_state[p]["mask"].flatten() for p in network.parameters()])]
    assert abs(float(masks[0].sum()) - 512) < 5 * 512**0.5
    assert bool(((first != 0) <= masks[0].bool()).all())
    assert bool(((second != 0) <= masks[0].bool()).all())


def test_base_is_the_base_optimizer_alone():
    ours, theirs = model(), model()

    stepped = steps(method_optimizer("base", ours, base=SGD, rho=0.0), ours)
    plain = steps(SGD(theirs.parameters()), theirs)

    assert all(torch.equal(a, b) for a, b in zip(stepped, plain, strict=True))


def watched(thetas, network, count, *, every=1):
    watch = Adversaries(
        gradient_ascent,
        thetas=thetas,
        full_loss=lambda: nn.functional.cross_entropy(network(X), Y.long()),
        every=every,
    )
    optimizer = RuleSAM(module_groups({"": network}), base=SGD, rule=watch, rho=0.1)
    return steps(optimizer, network, count), watch.means()


def test_watching_adversaries_changes_nothing():
    seen, _ = watched([0.2, 1.0], model(), 4)

    ours = model()
    plain = steps(method_optimizer("sam", ours, base=SGD, rho=0.1), ours, 4)

    assert all(torch.equal(a, b) for a, b in zip(seen, plain, strict=True))


def test_with_the_full_batch_sam_s_own_direction_has_no_error_and_no_excess():
    _, means = watched([0.2, 1.0], model(), 6)

    assert means["error_1"] == pytest.approx(0.0, abs=1e-9)
    assert means["excess_1"] == 0.0
    assert means["error_0.2"] > 1e-6
    assert set(means) == {f"{n}_{t}" for n in ("cosine", "error", "excess") for t in ("0.2", "1")}


def test_an_average_that_keeps_its_first_gradient_has_parallel_directions():
    _, means = watched([1e-9, 1.0], model(), 5)

    assert means["cosine_1e-09"] == pytest.approx(1.0, abs=1e-9)


def test_adversaries_are_compared_with_sam():
    with pytest.raises(ValueError, match=r"1\.0 must be in"):
        Adversaries(gradient_ascent, thetas=[0.2], full_loss=lambda: torch.zeros(()), every=1)
