"""MSAM against its equations on quadratics, in float64."""

from functools import partial

import pytest
import pytorch_optimizer
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, H, close, grad


def test_the_second_step_of_sgd_is_perturbed_against_the_momentum(quadratic):
    """arXiv:2401.12033; the first step has no momentum."""
    param, closure = quadratic(H, START)
    base = partial(torch.optim.SGD, lr=LR, momentum=0.9)
    optimizer = make_optimizer("msam", [param], base=base, rho=0.3)
    v = grad(START)
    first = START - LR * v
    v2 = 0.9 * v + grad(first - 0.3 * v / v.norm())

    optimizer.step(closure)
    optimizer.step(closure)

    close(param.detach(), first - LR * v2)


def test_the_second_step_of_adam_is_perturbed_against_its_first_moment(quadratic):
    param, closure = quadratic(H, START)
    other, plain = quadratic(H, START)
    optimizer = make_optimizer("msam", [param], base=partial(torch.optim.Adam, lr=LR), rho=0.3)
    adam = torch.optim.Adam([other], lr=LR)
    optimizer.step(closure)
    plain()
    adam.step()
    m = adam.state[other]["exp_avg"]
    other.grad = grad(other.detach() - 0.3 * m / m.norm())
    adam.step()

    optimizer.step(closure)

    close(param.detach(), other.detach())


def test_adamw_decays_the_clean_weights(quadratic):
    """Its authors' AdamW decays the perturbed ones, which is another step where decay is strong."""
    decay, rho, (beta1, beta2), eps = 0.5, 0.3, (0.9, 0.999), 1e-8
    param, closure = quadratic(H, START)
    base = partial(torch.optim.AdamW, lr=LR, weight_decay=decay)
    optimizer = make_optimizer("msam", [param], base=base, rho=rho)
    w, m, v = START.clone(), torch.zeros_like(START), torch.zeros_like(START)

    for t in range(1, 4):
        perturbation = -rho * m / (m.norm() + 1e-12)
        g = grad(w + perturbation)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        adam = (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
        theirs = (w + perturbation) * (1 - LR * decay) - perturbation - LR * adam
        w = w * (1 - LR * decay) - LR * adam
        optimizer.step(closure)

    close(param.detach(), w)
    assert float((w - theirs).norm()) == pytest.approx(LR * decay * rho)


@pytest.mark.parametrize("factor", [1e-3, 1e-9, 1e-12, 1e-30, 1e-300])
def test_the_perturbation_has_length_rho_whatever_the_scale_of_the_momentum(quadratic, factor):
    """Bases that estimate their rate, such as DAdaptLion, begin with momenta of 1e-12."""
    param, closure = quadratic(H, START)
    base = partial(torch.optim.SGD, lr=LR, momentum=0.9)
    optimizer = make_optimizer("msam", [param], base=base, rho=0.3)
    optimizer.step(closure)
    v = optimizer.state[param]["momentum_buffer"].mul_(factor)
    at = param.detach() - 0.3 * (v / factor) / (v / factor).norm()
    expected = param.detach() - LR * (0.9 * v + grad(at))

    optimizer.step(closure)

    torch.testing.assert_close(param.detach(), expected, rtol=1e-8, atol=1e-8)


def test_dadaptlion_is_perturbed_by_rho(quadratic):
    param, closure = quadratic(H, START)
    base = pytorch_optimizer.DAdaptLion
    optimizer = make_optimizer("msam", [param], base=base, rho=0.3)
    for _ in range(5):
        optimizer.step(closure)
        clean, seen = param.detach().clone(), []

        def watched(clean=clean, seen=seen):
            seen.append(float((param.detach() - clean).norm()))
            return closure()

        optimizer.step(watched)
        assert seen == [pytest.approx(0.3, rel=1e-4)]


def test_with_the_length_of_the_momentum_step_it_is_nesterov(quadratic):
    """rho = lr mu |v|, set anew before every step."""
    param, closure = quadratic(H, START)
    base = partial(torch.optim.SGD, lr=LR, momentum=0.9)
    optimizer = make_optimizer("msam", [param], base=base, rho=0.0)
    w, v = START.clone(), torch.zeros_like(START)

    for _ in range(5):
        optimizer.rho = float(LR * 0.9 * v.norm())
        optimizer.step(closure)
        v = 0.9 * v + grad(w - LR * 0.9 * v)
        w = w - LR * v

    close(param.detach(), w)


def test_a_base_without_momentum_is_refused():
    with pytest.raises(UserError, match="momentum"):
        make_optimizer("msam", [torch.nn.Parameter(torch.ones(1))], base="sgd")


NO_MOMENTUM = [
    "adadelta", "adalite", "adasmooth", "asgd", "dash", "fromage", "ftrl", "nero", "racs", "rose",
    "schedulefreeadamw", "schedulefreeradam", "schedulefreesgd", "scionlight", "vsgd",
]  # fmt: skip
"""Bases that keep none; schedule-free ones average the weights instead."""
UNUSABLE = [
    "a2grad", "aggmo", "dadaptadagrad", "dadaptsgd", "flashadamw", "gravity", "lorarite", "madgrad",
    "pnm", "sara", "scion",
]  # fmt: skip
"""Bases that keep several, or in a form of their own, or sums instead of means."""
OFF = ["alig", "amos", "demo", "pid", "qhm", "rmsprop", "sgd", "sgdp", "sgdw", "shampoo", "sm3"]
"""Bases whose momentum is switched off unless it is asked for."""
NO_BASE = [
    "adago", "adahessian", "adalomo", "adammini", "adamuon", "bsam", "distributedmuon", "lbfgs",
    "lomo", "muonclip", "normuon", "ranger21", "sophiah", "spectralsphere",
]  # fmt: skip
"""Optimizers that no method takes: they need more than a gradient, or settings."""
REFUSED = {*NO_MOMENTUM, *UNUSABLE, *OFF, *NO_BASE}


@pytest.mark.parametrize("name", pytorch_optimizer.get_supported_optimizers())
def test_every_base_is_perturbed_by_rho_or_refused(name):
    """Decided by what the base keeps after its first steps; it is never silently the base alone."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    inputs, params = torch.randn(2, 4), list(model.parameters())
    lengths, refused = [], ""

    def closure():
        moved = [(p.detach() - q).flatten() for p, q in zip(params, clean, strict=True)]
        lengths.append(float(torch.cat(moved).norm()))
        optimizer.zero_grad()
        loss = (model(inputs) - 3.0).square().mean()
        loss.backward()
        return loss

    try:
        optimizer = make_optimizer("msam", model, base=name, lr=1e-3, rho=0.3)
        for _ in range(4):
            clean = [p.detach().clone() for p in params]
            optimizer.step(closure)
    except UserError as error:
        refused = str(error)
    assert bool(refused) == (name in REFUSED), refused
    if not refused:
        assert lengths[2:] == [pytest.approx(0.3, rel=1e-3)] * 2
