"""Old and new import paths of what the configuration of a run builds.

``config.yaml`` of a run and ``study.json`` name classes and functions by their import path. A path
that has changed since is translated when the run is loaded. Add a row whenever such a name changes.
"""

import re
from typing import Any

from mbrl_flat.optim import OPTIMIZERS

RENAMED = {
    "agents": "mbrl_flat.agents",
    "envs": "mbrl_flat.envs",
    "mbrl_flat.supervised": "mbrl_flat.studies",
    "mbrl_flat.supervised.study": "mbrl_flat.studies.framework",
    "mbrl_flat.hopfield": "mbrl_flat.studies.hopfield",
    "mbrl_flat.hopfield.energy": "mbrl_flat.data.hopfield_energy",
    "mbrl_flat.hopfield.replay_policies": "mbrl_flat.data.selection_policies",
    "mbrl_flat.hopfield.energy_replay": "mbrl_flat.training.energy_sampler",
    "mbrl_flat.edge_of_stability": "mbrl_flat.studies.edge_of_stability",
    "mbrl_flat.diagnostics.landscape.loss_slice": (
        "mbrl_flat.diagnostics.landscape_probe.LandscapeProbe"
    ),
    "mbrl_flat.diagnostics.value_error.value_error": (
        "mbrl_flat.diagnostics.value_error_probe.ValueErrorProbe"
    ),
    "mbrl_flat.diagnostics.landscape_plots": "mbrl_flat.diagnostics.landscape_probe",
    "mbrl_flat.diagnostics.planner_bias": "mbrl_flat.diagnostics.planner_bias_probe",
    "mbrl_flat.diagnostics.robustness": "mbrl_flat.diagnostics.robustness_probe",
    "mbrl_flat.diagnostics.robustness.Perturbation": (
        "mbrl_flat.diagnostics.robustness_probe.EnvPerturbation"
    ),
    "mbrl_flat.diagnostics.value_estimates": "mbrl_flat.diagnostics.value_error_probe",
    "mbrl_flat.functional": "mbrl_flat.models.functional",
    "mbrl_flat.latents": "mbrl_flat.models.categorical",
    "mbrl_flat.diagnostics.quantities": "mbrl_flat.diagnostics.sharpness_measures",
    "mbrl_flat.studies.experiments.comparison.Comparison": (
        "mbrl_flat.studies.experiments.comparison.MethodComparison"
    ),
    "mbrl_flat.studies.experiments.weight_decay_eos.Sweep": (
        "mbrl_flat.studies.experiments.weight_decay_eos.DecaySweep"
    ),
    "mbrl_flat.studies.experiments.world_model_offline.Subject": (
        "mbrl_flat.studies.experiments.world_model_offline.ModelSettings"
    ),
    "mbrl_flat.diagnostics.quantities.AdaptiveGap": (
        "mbrl_flat.diagnostics.sharpness_measures.AdaptiveSharpness"
    ),
    "mbrl_flat.diagnostics.quantities.AverageGap": (
        "mbrl_flat.diagnostics.sharpness_measures.AverageCaseSharpness"
    ),
    "mbrl_flat.diagnostics.quantities.WorstGap": (
        "mbrl_flat.diagnostics.sharpness_measures.WorstCaseSharpness"
    ),
}
"""New name of each old module, class or function; a longer old name goes before a shorter one."""

# Before, a function that was spelled as the method built its optimizer.
RENAMED |= {
    f"{entry.kind.__module__}.{name}": f"{entry.kind.__module__}.{entry.kind.__qualname__}"
    for name, entry in OPTIMIZERS.items()
    if entry.kind.__module__.startswith("mbrl_flat.optim.methods.")
}

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def current_name(name: str) -> str:
    """Translate an import path.

    Returns:
        The path today; the same text where nothing was renamed.

    Example:
        >>> current_name("agents.tdmpc2.agent.TDMPC2")
        'mbrl_flat.agents.tdmpc2.agent.TDMPC2'
    """
    for old in sorted(RENAMED, key=len, reverse=True):
        if name.startswith(f"{old}.") or (name == old and "." in old):
            return current_name(RENAMED[old] + name[len(old) :])
    return name


def with_current_names(tree: Any) -> Any:
    """Copy nested lists and mappings with every old import path among their values translated."""
    if isinstance(tree, dict):
        return {key: with_current_names(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [with_current_names(value) for value in tree]
    return current_name(tree) if isinstance(tree, str) and _PATH.fullmatch(tree) else tree
