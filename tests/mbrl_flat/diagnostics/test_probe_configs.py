"""The probes as the command line makes them."""

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

import mbrl_flat.cli.commands  # noqa: F401 - registers the schemas
from mbrl_flat.diagnostics.bounds_probe import BoundsProbe
from mbrl_flat.diagnostics.open_loop_probe import OpenLoopProbe
from mbrl_flat.diagnostics.probe import RunProbe
from mbrl_flat.diagnostics.rollout_probe import RolloutProbe
from mbrl_flat.diagnostics.sharpness_measures import SamGaps, Trace
from mbrl_flat.diagnostics.sharpness_probe import SharpnessProbe


@pytest.fixture
def probe():
    def make(name):
        with initialize_config_module("mbrl_flat.configs", version_base=None):
            cfg = compose("train", overrides=[f"probe@probes.sharpness={name}", "seed=7"])
        return instantiate(cfg.probes.sharpness)

    GlobalHydra.instance().clear()
    yield make
    GlobalHydra.instance().clear()


def test_the_cheap_probe_is_the_one_of_every_run(probe):
    made = probe("sharpness")

    assert isinstance(made, SharpnessProbe)
    assert (made.curvature, made.gaps) == ((), ())


def test_the_full_probe_measures_with_its_measures(probe, linear_agent, filled_replay):
    made = probe("sharpness_full")

    assert made.curvature[0] == Trace(samples=8)
    assert isinstance(made.gaps[0], SamGaps)
    made.batch_size = 8
    row = made(linear_agent, filled_replay)
    assert {"probe/sharpness/heldout/trace", "probe/sharpness/sam_gap_0.5"} <= set(row)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("rollout_error", RolloutProbe), ("bounds", BoundsProbe), ("open_loop", OpenLoopProbe)],
)
def test_further_probes_can_take_part_in_a_run(probe, name, kind):
    assert isinstance(probe(name), kind)


@pytest.mark.parametrize("name", ["value_error", "landscape"])
def test_what_needs_more_than_a_replay_measures_a_saved_run(probe, name):
    assert isinstance(probe(name), RunProbe)
