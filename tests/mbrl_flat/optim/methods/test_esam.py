"""ESAM against its equations on quadratics, in float64."""

from functools import partial

import torch

from mbrl_flat.optim import make_optimizer

LR = 0.1
H = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0], dtype=torch.float64)


def one_step(quadratic, name, *, start=START, steps=1, **settings):
    param, closure = quadratic(H, start)
    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer(name, [param], base=base, **settings)
    for _ in range(steps):
        optimizer.step(closure)
    return param.detach()


def grad(w):
    return H @ w


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)


def test_the_displacement_of_the_chosen_tensors_is_longer_by_one_over_beta():
    """Two scalars with loss w'w / 2: one, the other or both are displaced, by rho / beta in all."""
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

    shifts = [b - a for a, b in zip(seen[::2], seen[1::2], strict=True)]
    for shift in shifts:
        close(shift.norm(), torch.tensor(0.2, dtype=torch.float64))
    assert {tuple((s > 0).tolist()) for s in shifts} == {(True, True), (True, False), (False, True)}


def test_with_beta_one_it_is_sam(quadratic):
    results = [
        one_step(quadratic, "esam", rho=0.3, beta=1.0, steps=3),
        one_step(quadratic, "sam", rho=0.3, steps=3),
    ]

    assert torch.equal(*results)
