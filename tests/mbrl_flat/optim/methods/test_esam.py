"""ESAM against its equations on quadratics, in float64."""

import gc
import pickle
import weakref
from functools import partial

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, H, close, one_step


def test_the_displacement_of_the_chosen_tensors_is_longer_by_one_over_beta():
    """Two scalars with loss w'w / 2: one, the other or both are perturbed, by rho / beta in all."""
    params = [torch.nn.Parameter(torch.tensor([v], dtype=torch.float64)) for v in (3.0, 4.0)]
    seen = []

    def closure():
        for p in params:
            p.grad = None
        seen.append(torch.cat([p.detach() for p in params]))
        loss = sum(0.5 * (p**2).sum() for p in params)
        loss.backward()
        return loss.detach()

    base = partial(torch.optim.SGD, lr=0.0)
    optimizer = make_optimizer("esam", params, base=base, rho=0.1, beta=0.5)
    for _ in range(60):
        optimizer.step(closure)

    perturbation = [b - a for a, b in zip(seen[::2], seen[1::2], strict=True)]
    for shift in perturbation:
        close(shift.norm(), torch.tensor(0.2, dtype=torch.float64))
    assert {tuple((s > 0).tolist()) for s in perturbation} == {
        (True, True),
        (True, False),
        (False, True),
    }


SLOPES = torch.tensor([1.0, 2.0, 0.5, 4.0], dtype=torch.float64)
CENTRES = torch.tensor([0.0, 3.0, -1.0, 1.5], dtype=torch.float64)


class Parabolas:
    """Examples ``a_i (w - c_i)^2 / 2`` of one weight."""

    def __init__(self, start=1.0):
        self.w = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))
        self.asked = []

    def __call__(self):
        self.w.grad = None
        loss = self.losses().mean()
        loss.backward()
        return loss.detach()

    def losses(self, chosen=slice(None)):
        self.asked.append(chosen)
        return 0.5 * SLOPES[chosen] * (self.w - CENTRES[chosen]) ** 2


@pytest.mark.parametrize(("gamma", "kept"), [(0.25, 1), (0.5, 2), (0.75, 3)])
def test_the_second_gradient_is_that_of_the_examples_whose_loss_rises_most(gamma, kept):
    """arXiv:2110.03141, sharpness-sensitive data selection."""
    problem, rho = Parabolas(), 0.3
    slopes = SLOPES * (1.0 - CENTRES)
    at = 1.0 + rho * torch.sign(slopes.mean())
    rise = 0.5 * SLOPES * ((at - CENTRES) ** 2 - (1.0 - CENTRES) ** 2)
    chosen = rise.argsort(descending=True)[:kept]
    expected = 1.0 - LR * (SLOPES * (at - CENTRES))[chosen].mean()
    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer("esam", [problem.w], base=base, rho=rho, beta=1.0, gamma=gamma)

    loss = optimizer.step(problem)

    close(problem.w.detach(), expected.reshape(1))
    close(loss, (0.5 * SLOPES * (1.0 - CENTRES) ** 2).mean())
    gap = (0.5 * SLOPES * (at - CENTRES) ** 2).mean() - loss
    close(optimizer.last["perturbed_gap"], gap)
    assert problem.asked[2].numel() == kept
    assert optimizer.last["evaluations"] == 2.0


def test_a_plain_step_between_takes_all_examples():
    problem = Parabolas()
    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer("esam", [problem.w], base=base, rho=0.3, gamma=0.5, every=2)
    optimizer.step(problem)
    before = problem.w.detach().clone()

    optimizer.step(problem)

    close(problem.w.detach(), before - LR * (SLOPES * (before - CENTRES)).mean())


def test_a_scaled_loss_gives_the_same_step():
    results = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10)):
        problem = Parabolas()
        base = partial(torch.optim.SGD, lr=LR)
        optimizer = make_optimizer("esam", [problem.w], base=base, rho=0.3, gamma=0.5)
        optimizer.step(problem, scaler=scaler)
        results.append(problem.w.detach())

    close(*results)


def test_a_closure_that_gives_only_the_mean_is_refused(quadratic):
    param, closure = quadratic(H, START)
    optimizer = make_optimizer("esam", [param], gamma=0.5)

    with pytest.raises(UserError, match="losses"):
        optimizer.step(closure)


@pytest.mark.parametrize("wrong", [{"gamma": 0.0}, {"gamma": 1.5}, {"beta": 0.0}])
def test_a_share_out_of_its_range_is_refused(quadratic, wrong):
    param, _ = quadratic(H, START)

    with pytest.raises(UserError, match=next(iter(wrong))):
        make_optimizer("esam", [param], **wrong)


def test_with_beta_one_it_is_sam(quadratic):
    results = [
        one_step(quadratic, "esam", rho=0.3, beta=1.0, steps=3),
        one_step(quadratic, "sam", rho=0.3, steps=3),
    ]

    assert torch.equal(*results)


def test_no_closure_is_kept_after_the_step():
    """A closure holds its batch, and a local one cannot be pickled."""

    class Local(Parabolas):
        pass

    problem = Local()
    optimizer = make_optimizer("esam", [problem.w], base="sgd", gamma=0.5)
    optimizer.step(problem)
    closure = weakref.ref(problem)

    del problem
    gc.collect()

    assert closure() is None
    pickle.dumps(optimizer)
