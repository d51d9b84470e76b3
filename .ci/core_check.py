"""What the core install must do; .ci/run runs it with torch, numpy and scipy alone."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from mbrl_flat.diagnostics.hvp import Hessian
from mbrl_flat.diagnostics.lanczos import lanczos
from mbrl_flat.errors import install_command
from mbrl_flat.optim import make_optimizer


def check_sharpness_aware_training():
    """SAM fits a small regression, and Lanczos measures the sharpness where it ended."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(64, 4)
    y = x.sum(1, keepdim=True)
    optimizer = make_optimizer("sam", model.parameters(), base="adam", lr=1e-2, rho=0.05)

    def loss():
        return (model(x) - y).square().mean()

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    first = loss().item()
    for _ in range(100):
        optimizer.step(closure)
    assert loss().item() < 0.1 * first, (first, loss().item())
    hessian = Hessian(loss, list(model.parameters()))
    spectrum = lanczos(hessian, torch.randn(hessian.size))
    assert spectrum.lambda_max > 0.0, spectrum


def check_that_missing_extras_are_named():
    """An import and every command say which extra to install."""
    assert importlib.util.find_spec("gymnasium") is None, "this is no core install"
    try:
        importlib.import_module("mbrl_flat.envs")
        message = "mbrl_flat.envs imports without gymnasium"
    except ImportError as error:
        message = str(error)
    assert message.endswith(f"run: {install_command('train')}."), message
    for command in ("train", "evaluate", "probe", "supervised", "compare"):
        program = Path(sys.executable).parent / f"mbrl-flat-{command}"
        done = subprocess.run([program], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done
        assert done.stderr.endswith(f"run: {install_command('train')}.\n"), done
        assert done.stderr.count("\n") == 1, done


check_sharpness_aware_training()
check_that_missing_extras_are_named()
