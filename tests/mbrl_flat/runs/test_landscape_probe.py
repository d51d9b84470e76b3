"""The landscape is that of the weights that the agent acts with."""

from types import SimpleNamespace

import numpy as np
from torch import nn

from mbrl_flat.diagnostics import landscape_probe
from mbrl_flat.optim import make_optimizer


def test_the_centre_is_the_loss_at_the_averaged_weights(monkeypatch, tmp_path):
    model = nn.Linear(1, 1, bias=False)
    optimizer = make_optimizer("ema", model.parameters(), lr=0.1)

    def loss():
        return model.weight.sum()

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value.detach()

    for _ in range(5):
        optimizer.step(closure)
    agent = SimpleNamespace(
        optimizer=optimizer, batch_size=1, sequence_length=1, probe_loss=lambda _: loss
    )
    replay = SimpleNamespace(sample=lambda *_, **__: None, can_sample=lambda *_, **__: True)
    run = SimpleNamespace(agent=agent, replay=replay, folder=tmp_path, step=5, seed=0)
    monkeypatch.setattr(landscape_probe, "draw_slice", lambda *_, **__: None)
    monkeypatch.setattr(
        landscape_probe,
        "loss_slice",
        lambda loss: SimpleNamespace(distances=np.zeros(1), losses=np.array([loss().item()])),
    )

    row = landscape_probe.LandscapeProbe().measure_run(run)

    with optimizer.evaluation_params():
        averaged = loss().item()
    assert row["probe/landscape/centre"] == averaged
    assert 0.0 < averaged - loss().item() < 5 * 0.1, "the average lags behind five steps of 0.1"
