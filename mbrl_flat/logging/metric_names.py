"""Old names of metrics: runs that were recorded under them are read under the current ones."""

from collections.abc import Mapping

RENAMED: Mapping[str, str] = {
    "worst_gap": "worst_case_sharpness",
    "adaptive_gap": "adaptive_sharpness",
    "average_gap": "average_case_sharpness",
    "average_gap_standard_error": "average_case_sharpness_standard_error",
}
"""Last part of the name of a ``probe/sharpness/`` metric: old to current."""


def current_name(name: str) -> str:
    """Current name of a metric; names that were never changed are returned as they are.

    Args:
        name: Name of a metric, such as a key of a row of ``metrics.jsonl``.

    Returns:
        Its current name.

    >>> current_name("probe/sharpness/encoder/adaptive_gap")
    'probe/sharpness/encoder/adaptive_sharpness'
    """
    head, _, last = name.rpartition("/")
    if last in RENAMED and name.startswith("probe/sharpness/"):
        return f"{head}/{RENAMED[last]}"
    return name
