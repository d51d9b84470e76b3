"""Six steps of every deterministic method against its equations, written once more in NumPy.

The loss is not quadratic, the base has momentum and weight decay, the two groups have rates of
their own, and both rates change on the way: what a method remembers is right only if it was
updated in every step, from the right gradient.
"""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from mbrl_flat.optim import make_optimizer

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(7, 2)), RNG.normal(size=(7, 3))
START = {"weight": RNG.normal(size=(2, 3)), "bias": RNG.normal(size=3)}
RATES = {"weight": 0.05, "bias": 0.1}
MOMENTUM, DECAY, STEPS = 0.9, 0.02, 6
SHAPES = {name: value.shape for name, value in START.items()}
CUT = START["weight"].size


def grad(w):
    """Gradient of ``|tanh(X W + b) - Y|^2 / 21`` at all weights in one vector."""
    weight, bias = w[:CUT].reshape(SHAPES["weight"]), w[CUT:]
    out = np.tanh(X @ weight + bias)
    inner = 2.0 * (out - Y) * (1.0 - out**2) / Y.size
    return np.concatenate([(X.T @ inner).ravel(), inner.sum(0)])


def unit(v):
    return v / (np.linalg.norm(v) + 1e-12)


def across(v, along):
    return v - (v @ along) / (along @ along) * along


def sam(w, memory, rho):
    return grad(w + rho * unit(grad(w)))


def gsam(w, memory, rho, alpha):
    ahead = sam(w, memory, rho)
    return ahead - alpha * across(grad(w), ahead)


def fisher_sam(w, memory, rho, eta):
    g = grad(w)
    scaled = g / (1.0 + eta * g**2)
    return grad(w + rho * scaled / np.sqrt(g @ scaled))


def gnp(w, memory, rho, alpha):
    return (1.0 - alpha) * grad(w) + alpha * sam(w, memory, rho)


def gam(w, memory, *, rho, inner_rho, gamma, descent_weight, penalty_weight):
    clean = grad(w)
    near = grad(w + inner_rho * unit(clean))
    there = w + rho * unit(near - clean)
    at = grad(there)
    beyond = grad(there + inner_rho * unit(at))
    main = descent_weight * near + (1.0 - descent_weight) * beyond
    return main - gamma * across(clean + (1.0 - penalty_weight) * at, main)


def sagm(w, memory, rho, alpha):
    g = grad(w)
    return (g + grad(w + (rho / np.linalg.norm(g) - alpha) * g)) / 2.0


def stable_sam(w, memory, rho):
    ahead = sam(w, memory, rho)
    return ahead * np.linalg.norm(grad(w)) / np.linalg.norm(ahead)


def zsharp(w, memory, rho, percentile):
    parts = []
    for g in np.split(grad(w), [CUT]):
        scores = np.abs(g - g.mean()) / (g.std() + 1e-8)
        kept = max(1, round((1.0 - percentile) * g.size))
        parts.append(g * (scores >= np.sort(scores)[-kept]))
    return grad(w + rho * unit(np.concatenate(parts)))


def cr_sam(w, memory, rho, gamma, beta):
    step = rho * unit(grad(w))
    ahead, behind = grad(w + step), grad(w - step)
    return ahead + gamma * (ahead + behind - 2.0 * grad(w)) + beta * (ahead - behind)


def looksam(w, memory, rho, alpha, every):
    count = memory["count"] = memory.get("count", -1) + 1
    g = grad(w)
    if count % every == 0:
        ahead = grad(w + rho * unit(g))
        memory["part"] = across(ahead, g)
        return ahead
    part = memory["part"]
    return g + alpha * np.linalg.norm(g) / np.linalg.norm(part) * part


def friendly_sam(w, memory, rho, mean_share, decay):
    g = grad(w)
    rest = g - mean_share * memory["mean"] if "mean" in memory else g
    memory["mean"] = decay * memory.get("mean", g) + (1.0 - decay) * g
    return grad(w + rho * unit(rest))


def vasso(w, memory, rho, theta):
    g = grad(w)
    memory["mean"] = (1.0 - theta) * memory.get("mean", g) + theta * g
    return grad(w + rho * unit(memory["mean"]))


def sampa(w, memory, rho, ahead_weight):
    last = memory.get("ahead", grad(w))
    point = w - memory["rates"] * last
    side = grad(w + rho * unit(last))
    memory["ahead"] = grad(point)
    return (1.0 - ahead_weight) * side + ahead_weight * memory["ahead"]


def asam(w, memory, rho, eta):
    g, scale = grad(w), np.abs(w) + eta
    return grad(w + rho * scale**2 * g / np.linalg.norm(scale * g))


def msam(w, memory, rho):
    buffer = memory.get("buffer")
    return grad(w) if buffer is None else grad(w - rho * unit(buffer))


def preconditioned_sam(w, memory, rho, decay):
    g = grad(w)
    scaled = g / (np.sqrt(memory["square"]) + 1e-8) if "square" in memory else g
    before = memory.get("square", np.zeros_like(g))
    memory["square"] = decay * before + (1.0 - decay) * g**2
    return grad(w + rho * unit(scaled))


def wsam(w, memory, rho, gamma):
    alpha = gamma / (1.0 - gamma)
    return (1.0 - alpha) * grad(w) + alpha * sam(w, memory, rho)


METHODS = {
    sam: {},
    gsam: {"alpha": 0.4},
    fisher_sam: {"eta": 2.0},
    gnp: {"alpha": 0.7},
    gam: {"inner_rho": 0.05, "gamma": 0.2, "descent_weight": 0.6, "penalty_weight": 0.5},
    sagm: {"alpha": 0.1},
    stable_sam: {},
    zsharp: {"percentile": 0.6},
    cr_sam: {"gamma": 0.3, "beta": 0.2},
    looksam: {"alpha": 0.7, "every": 3},
    friendly_sam: {"mean_share": 0.8, "decay": 0.7},
    vasso: {"theta": 0.4},
    sampa: {"ahead_weight": 0.3},
    asam: {"eta": 0.1},
    msam: {},
    preconditioned_sam: {"decay": 0.9},
    wsam: {"gamma": 0.8, "form": "coupled"},
}


def rates_at(step):
    factor = 1.0 if step < 3 else 0.5
    sizes = [np.prod(shape, dtype=int) for shape in SHAPES.values()]
    return factor * np.repeat(list(RATES.values()), sizes)


def by_the_equations(equations, settings):
    w, memory = np.concatenate([value.ravel() for value in START.values()]), {}
    for step in range(STEPS):
        memory["rates"] = rates_at(step)
        d = equations(w, memory, **settings) + DECAY * w
        memory["buffer"] = d if step == 0 else MOMENTUM * memory["buffer"] + d
        w = w - memory["rates"] * memory["buffer"]
    return w


def by_the_library(name, settings, *, foreach):
    params = {name: nn.Parameter(torch.tensor(value)) for name, value in START.items()}
    groups = [{"params": [param], "lr": RATES[key]} for key, param in params.items()]
    base = partial(torch.optim.SGD, lr=1.0, momentum=MOMENTUM, weight_decay=DECAY, foreach=foreach)
    optimizer = make_optimizer(name, groups, base=base, **settings)

    def closure():
        optimizer.zero_grad()
        out = torch.tanh(torch.tensor(X) @ params["weight"] + params["bias"])
        loss = (out - torch.tensor(Y)).square().mean()
        loss.backward()
        return loss

    for step in range(STEPS):
        for group, rate in zip(optimizer.param_groups, RATES.values(), strict=True):
            group["lr"] = rate if step < 3 else 0.5 * rate
        optimizer.step(closure)
    return torch.cat([param.detach().flatten() for param in params.values()])


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("equations", METHODS, ids=lambda method: method.__name__)
def test_six_steps_follow_the_equations(equations, foreach):
    settings = {"rho": 0.3, **METHODS[equations]}

    result = by_the_library(equations.__name__, settings, foreach=foreach)

    settings.pop("form", None)
    expected = torch.from_numpy(by_the_equations(equations, settings))
    torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-9)
