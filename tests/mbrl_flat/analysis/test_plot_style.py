import subprocess
import sys
from pathlib import Path

from mbrl_flat.analysis.plot_style import METHODS, PALETTE, method_style

CONFIGS = Path(__file__).parents[3] / "configs" / "optimizer"


def test_every_method_of_the_registry_and_every_base_has_a_style():
    # Files and not the registry: other tests register methods of their own.
    methods = {path.stem for path in CONFIGS.glob("*.yaml")}
    bases = {path.stem for path in (CONFIGS / "base").glob("*.yaml")}

    assert set(METHODS) == methods | bases


def test_no_two_methods_share_a_colour_or_a_name():
    assert len({style.color for style in METHODS.values()}) == len(METHODS)
    assert len({style.name for style in METHODS.values()}) == len(METHODS)


def test_an_unknown_method_always_has_the_same_colour():
    style = method_style("my_method")

    assert style == method_style("my_method")
    assert style.name == "my_method"
    assert style.color in PALETTE


def test_the_table_is_read_without_matplotlib():
    code = (
        "import sys; from mbrl_flat.analysis.plot_style import method_style; "
        "print(method_style('sam').name, 'matplotlib' in sys.modules)"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout == "SAM False\n"
