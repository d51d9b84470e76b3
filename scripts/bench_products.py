"""How fast products of matrices are: by MKL (of torch), OpenBLAS (of numpy), packed oneDNN.

Shapes are those of TD-MPC2's layers at the published size, float32, one thread, CPU time. All take
turns; medians in GFLOP/s.

    python scripts/bench_products.py --rounds 24
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

SHAPES = ((768, 512, 512), (256, 518, 512), (768, 512, 101), (512, 768, 512), (512, 518, 512))
"""Rows, inputs and outputs."""


def main() -> None:
    """Print one line for each shape."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=24)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for shape in SHAPES:
        rows, n_in, n_out = shape
        spent: dict[str, list[float]] = {}
        ways = _ways(torch.randn(rows, n_in), torch.randn(n_out, n_in))
        for _ in range(rounds):
            for name, multiply in ways.items():
                start = time.process_time()
                multiply()
                multiply()
                spent.setdefault(name, []).append(time.process_time() - start)
        rates = {
            name: 4e-9 * rows * n_in * n_out / statistics.median(times)
            for name, times in spent.items()
        }
        print(shape, ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))
    print(f"load average {os.getloadavg()[0]:.1f}")


def _ways(x: torch.Tensor, weight: torch.Tensor) -> dict[str, Callable[[], object]]:
    operators: Any = torch.ops.mkldnn
    packed = operators._reorder_linear_weight(weight, len(x))
    out = torch.empty(len(x), len(weight))
    x_numpy, weight_numpy, out_numpy = x.numpy(), weight.numpy(), out.numpy()
    return {
        "MKL": lambda: torch.mm(x, weight.T, out=out),
        "OpenBLAS": lambda: np.matmul(x_numpy, weight_numpy.T, out=out_numpy),
        "oneDNN, packed": lambda: operators._linear_pointwise(x, packed, None, "none", [], ""),
    }


if __name__ == "__main__":
    main()
