"""Formulas of a page as MathML, which browsers draw by themselves: no script, no network."""

import re

from latex2mathml.converter import convert

_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\$`([^`]+)`\$")
_SPECIAL = str.maketrans({sign: f"&#{ord(sign)};" for sign in "*_|[]`"})


def render(text: str) -> str:
    """Replace the formulas of GitHub's Markdown by MathML.

    Args:
        text: Markdown with blocks fenced as ``math`` and formulas in dollar signs and backticks.

    Returns:
        The same text with HTML in their place.
    """
    text = _BLOCK.sub(
        lambda found: f'\n<div class="formula">{_mathml(found[1], "block")}</div>\n', text
    )
    return _INLINE.sub(lambda found: _mathml(found[1], "inline"), text)


def _mathml(latex: str, display: str) -> str:
    # The converter knows neither of the two; both stand for what it knows.
    latex = latex.replace("\\mathbb{1}", "1").replace("\\operatorname*", "\\operatorname")
    return convert(" ".join(latex.split()), display=display).translate(_SPECIAL)
