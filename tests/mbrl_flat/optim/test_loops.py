"""Loops that give no closure, accumulate gradients, scale losses, or have stateful modules."""

from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim import ESAM, IVON, SAM, SAMON, make_optimizer
from mbrl_flat.optim.snapshots import frozen_statistics

X = torch.linspace(-1.0, 1.0, 24).reshape(8, 3)


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), *layers, nn.Linear(4, 1))


def closure_of(optimizer, net, x=X, scaler=None):
    def closure():
        optimizer.zero_grad()
        loss = net(x).square().mean()
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss.detach()

    return closure


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("name", ["sam", "gsam", "vasso", "stable_sam"])
def test_first_and_second_step_are_a_step_with_a_closure(name):
    nets = [network(nn.BatchNorm1d(4)) for _ in range(2)]
    optimizers = [make_optimizer(name, net, lr=0.1, rho=0.2, max_grad_norm=1.0) for net in nets]
    for _ in range(3):
        optimizers[0].step(closure_of(optimizers[0], nets[0]))
        nets[1](X).square().mean().backward()
        optimizers[1].first_step()
        nets[1](X).square().mean().backward()
        optimizers[1].second_step()
        optimizers[1].zero_grad()

    assert same(*nets)
    assert int(nets[1][1].num_batches_tracked) == 3


def test_the_two_steps_are_asked_for_in_their_order():
    optimizer = SAM(network())
    with pytest.raises(UserError, match="without first_step"):
        optimizer.second_step()
    with pytest.raises(UserError, match="needs gradients"):
        optimizer.first_step()


def test_a_closure_that_accumulates_is_refused_and_its_gradients_stay():
    """Lightning with accumulate_grad_batches: the last closure adds to what was there."""
    net = network()
    optimizer = SAM(net)
    net(X).square().mean().backward()
    before = [p.grad.clone() for p in net.parameters()]

    def closure():
        loss = net(X).square().mean()
        loss.backward()
        return loss.detach()

    with pytest.raises(UserError, match="adds to gradients from before the step"):
        optimizer.step(closure)
    assert len(before) == 4


def test_a_plain_method_accumulates_as_its_base_does():
    net, other = network(), network()
    optimizer, plain = make_optimizer("sgd", net, lr=0.1), torch.optim.SGD(other.parameters(), 0.1)
    for one in (net, other):
        one(X).square().mean().backward()

    def closure():
        loss = net(X).square().mean()
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    other(X).square().mean().backward()
    plain.step()

    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


class RunningMean(nn.Module):
    """A user's running normaliser; ``replaces`` makes new buffers instead of changing them."""

    def __init__(self, size, *, replaces):
        super().__init__()
        self.replaces = replaces
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        with torch.no_grad():
            if self.replaces:
                self.count = self.count + 1.0
                self.mean = self.mean + (x.mean(0) - self.mean) / self.count
            else:
                self.count += 1.0
                self.mean += (x.mean(0) - self.mean) / self.count
        return x - self.mean


@pytest.mark.parametrize("replaces", [False, True])
def test_buffers_of_any_module_change_once_a_step(replaces):
    net = network(RunningMean(4, replaces=replaces))
    optimizer = SAM(net)

    for _ in range(3):
        optimizer.step(closure_of(optimizer, net))

    assert int(net[1].count) == 3


class Codebook(nn.Module):
    """Codes that an average moves and no gradient: parameters without one, changed in place."""

    def __init__(self, size, *, by_data):
        super().__init__()
        self.by_data = by_data
        self.codes = nn.Parameter(torch.zeros(size), requires_grad=False)

    def forward(self, x):
        codes = self.codes.data if self.by_data else self.codes
        with torch.no_grad():
            codes += 1.0
        return x - self.codes.detach()


@pytest.mark.parametrize("by_data", [False, True])
@pytest.mark.parametrize("method", [SAM, partial(SAM, only=["0"]), partial(ESAM, beta=0.5)])
def test_parameters_that_a_forward_pass_moves_move_once_a_step(method, by_data):
    net = network(Codebook(4, by_data=by_data))
    optimizer = method(net)

    for _ in range(3):
        optimizer.step(closure_of(optimizer, net))

    assert torch.equal(net[1].codes, torch.full((4,), 3.0))


@pytest.mark.parametrize(
    "norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm], ids=["new", "old"]
)
def test_the_power_iteration_of_spectral_norm_moves_once_a_step(norm):
    nets = [nn.Sequential(norm(nn.Linear(3, 4)), nn.Linear(4, 1)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    sam, plain = SAM(nets[0], base="sgd", lr=0.0), make_optimizer("sgd", nets[1], lr=0.0)

    for optimizer, net in ((sam, nets[0]), (plain, nets[1])):
        optimizer.step(closure_of(optimizer, net))

    pairs = zip(nets[0].buffers(), nets[1].buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_frozen_statistics_undo_a_replaced_buffer():
    layer = RunningMean(3, replaces=True)
    with frozen_statistics():
        layer(X)
    assert float(layer.count) == 0.0


@pytest.mark.parametrize("method", [SAMON, partial(ESAM, beta=0.5), partial(SAM, only=["norm"])])
def test_group_norm_in_channels_last_keeps_an_input_with_gradient(method):
    """torch crashes there where the input takes no gradient and the parameters do."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(288, 1))
    net = net.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    optimizer = method(net, base="sgd", lr=0.01, rho=0.1)

    for _ in range(3):
        loss = optimizer.step(closure_of(optimizer, net, x))

    assert torch.isfinite(loss)
    assert not x.requires_grad


def test_esam_chooses_examples_at_the_perturbed_point_alone():
    """One part does not use the tensor that was drawn, and is evaluated twice at the weights."""
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    seen = []

    class Part:
        def __init__(self, tensor):
            self.tensor = tensor

        def __call__(self):
            raise AssertionError

        def losses(self, chosen=slice(None)):
            losses = (self.tensor * torch.arange(1.0, 5.0)).square()[chosen]
            if torch.is_grad_enabled():
                seen.append((self.tensor is b, losses.numel()))
            return losses

    optimizer = ESAM([a, b], base="sgd", lr=0.1, beta=1.0, gamma=0.5, micro_batches="each")
    optimizer.only = None
    optimizer._chosen = lambda: {a: 0.1}

    optimizer.step([Part(a), Part(b)])

    assert [count for of_b, count in seen if of_b] == [4] * sum(of_b for of_b, _ in seen)


def test_a_module_that_changes_its_type_is_restored_in_that_type():
    net = network()
    optimizer = SAM(net, base="sgd", lr=0.0)
    for change in (net.double, net.float, net.double):
        change()
        before = [p.detach().clone() for p in net.parameters()]
        optimizer.step(closure_of(optimizer, net, X.to(before[0].dtype)))
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("updates", [False, True])
def test_a_scaler_takes_part_with_and_without_its_own_update(updates):
    nets = [network() for _ in range(2)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled, plain = (SAM(net, base="sgd", lr=0.1, rho=0.1) for net in nets)
    for _ in range(4):
        scaled.step(closure_of(scaled, nets[0], scaler=scaler), scaler=scaler)
        if updates:
            scaler.update()
        plain.step(closure_of(plain, nets[1]))

    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_the_other_habit_of_scalers_is_explained():
    net = network()
    scaler = torch.amp.GradScaler("cpu")
    optimizer = SAM(net)
    closure_of(optimizer, net, scaler=scaler)()

    with pytest.raises(UserError, match=r"optimizer\.step\(closure, scaler=scaler\)"):
        scaler.step(optimizer, closure_of(optimizer, net, scaler=scaler))


@pytest.mark.parametrize("name", ["sam", "msam", "ivon"])
def test_a_closure_under_bfloat16_autocast_moves_float32_weights(name):
    net = network()
    optimizer = make_optimizer(name, net, **({} if name == "ivon" else {"rho": 0.1}))

    def closure():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = net(X).float().square().mean()
        loss.backward()
        return loss.detach()

    first = optimizer.step(closure)

    assert all(p.dtype == p.grad.dtype == torch.float32 for p in net.parameters())
    assert torch.isfinite(first)


def test_an_ascent_gradient_in_bfloat16_leaves_the_reported_loss_in_float32():
    net, other = network(), network()
    reduced = SAM(net, base="sgd", lr=0.01, rho=0.1, ascent_precision="bfloat16")
    plain = SAM(other, base="sgd", lr=0.01, rho=0.1)
    dtypes = []
    net[0].register_forward_hook(lambda *call: dtypes.append(call[2].dtype))

    loss = reduced.step(closure_of(reduced, net))
    clean = plain.step(closure_of(plain, other))

    assert dtypes == [torch.bfloat16, torch.float32]
    assert reduced.reported == -1
    assert float(loss) == pytest.approx(float(clean + plain.last["perturbed_gap"]), rel=1e-3)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)


def test_an_ascent_gradient_of_half_the_batch_is_that_of_its_first_half():
    net, other = network(), network()
    optimizer = SAM(net, base="sgd", lr=0.1, rho=0.2, ascent_fraction=0.5)

    class Loss:
        def __init__(self):
            self.sizes = []

        def on_fraction(self, fraction):
            count = max(1, round(fraction * len(X)))
            self.sizes.append(count)
            return closure_of(optimizer, net, X[:count])()

        def __call__(self):
            return self.on_fraction(1.0)

    loss = Loss()
    optimizer.step(loss)

    assert loss.sizes == [4, 8]
    other(X[:4]).square().mean().backward()
    params = list(other.parameters())
    norm = torch.cat([p.grad.flatten() for p in params]).norm()
    before = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p in params:
            p.add_(p.grad, alpha=float(0.2 / norm))
    other.zero_grad()
    other(X).square().mean().backward()
    for p, q, start in zip(net.parameters(), params, before, strict=True):
        torch.testing.assert_close(p.detach(), start - 0.1 * q.grad, rtol=1e-5, atol=1e-6)


def test_what_cannot_reduce_its_ascent_refuses_it():
    for name in ("gsam", "msam", "adam"):
        with pytest.raises(UserError, match="ascent_precision"):
            make_optimizer(name, network(), ascent_precision="bfloat16")
    optimizer = SAM(network(), ascent_fraction=0.5)
    with pytest.raises(UserError, match="on_fraction"):
        optimizer.step(lambda: torch.zeros(()))


@pytest.mark.parametrize(
    "settings",
    [{"rho": None}, {"rho": float("inf")}, {"rho": "a"}, {"every": None}, {"every": 1.5}],
)
def test_settings_of_the_wrong_kind_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        SAM(network(), **settings)


def test_a_schedule_that_gives_no_number_is_refused_when_it_does():
    net = network()
    optimizer = SAM(net, rho=lambda step, lr: float("nan") if step else 0.1)
    optimizer.step(closure_of(optimizer, net))
    with pytest.raises(UserError, match="after 1 steps"):
        optimizer.step(closure_of(optimizer, net))


def test_ivon_of_wrong_settings_is_refused():
    with pytest.raises(UserError, match="ess"):
        IVON(network(), ess=None)


class LlamaRMSNorm(nn.Module):
    """A normalisation layer of a user's."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Scale(LlamaRMSNorm):
    """One whose name does not tell."""


def test_sam_on_finds_layers_by_their_class_names_and_says_so():
    net = network(LlamaRMSNorm(4))
    with pytest.warns(UserWarning, match="1 tensors of LlamaRMSNorm"):
        optimizer = SAMON(net, rho=0.1)
    optimizer.step(closure_of(optimizer, net))
    assert set(optimizer._chosen()) == {net[1].weight}


def test_sam_on_takes_layers_that_the_user_names():
    net = network(nn.LayerNorm(4), Scale(4))
    with pytest.warns(UserWarning, match="leaves out 1 tensors of Scale"):
        SAMON(net)
    images = network(nn.LayerNorm(4), Scale((1, 1, 1, 4)))
    with pytest.warns(UserWarning, match="leaves out 1 tensors of Scale"):
        SAMON(images)
    with pytest.warns(UserWarning, match="Scale"):
        optimizer = SAMON(net, norm_layers=["Scale"])
    assert set(optimizer._chosen()) == {net[1].weight, net[1].bias, net[2].weight}
