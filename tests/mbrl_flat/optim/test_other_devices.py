"""A state that was saved on one kind of device and is loaded on another."""

import pytest
import torch


def as_if_from_a_gpu(state):
    """A CUDA generator's state is 16 bytes, seed and offset; a CPU's is some thousand."""
    state["perturbation"]["generator"] = torch.zeros(16, dtype=torch.uint8)
    state["perturbation"]["generator_device"] = "cuda"
    return state


@pytest.mark.parametrize("name", ["sam", "random_direction", "ivon", "vgd"])
def test_a_state_from_a_gpu_goes_on_on_a_cpu_the_same_way_every_time(new_problem, make, name):
    ends = []
    for _ in range(2):
        problem = new_problem()
        optimizer = make(name, problem.groups())
        optimizer.step(problem.closure)

        optimizer.load_state_dict(as_if_from_a_gpu(optimizer.state_dict()))
        optimizer.step(problem.closure)
        ends.append(problem.values())

    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_state_that_does_not_name_its_device_still_goes_on_bit_for_bit(new_problem, make):
    ends = []
    for forgets in (False, True):
        problem = new_problem()
        optimizer = make("random_direction", problem.groups())
        optimizer.step(problem.closure)
        state = optimizer.state_dict()
        if forgets:
            del state["perturbation"]["generator_device"]

        optimizer.load_state_dict(state)
        optimizer.step(problem.closure)
        ends.append(problem.values())

    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
