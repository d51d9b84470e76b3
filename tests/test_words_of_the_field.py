"""No private word of the first drafts stands in code, configurations or messages."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("mbrl_flat", "agents", "envs", "configs", "scripts")
FILES = sorted(
    path
    for folder in FOLDERS
    for ending in ("py", "yaml", "jinja", "js", "css")
    for path in (ROOT / folder).rglob(f"*.{ending}")
)
WORDS = {
    r"foretell|foretold": "predict, predicted",
    r"\banew\b": "recomputed, resampled, rerun",
    r"\barms?\b": "variant",
    r"not resolved|unresolved": "inconclusive",
    r"does not hold here": "contradicted, or inconclusive",
    r"displac(e|ing)": "perturb, perturbation",
    r"\bfilm": "video",
    r"\bpictures?\b": "figure, image",
    r"\bgo(es|ing)? on\b|\bwent on\b": "resumes, continues",
    r"slices? of an? episode|\bslices of\b": "subsequence",
    r"returns? of an episode": "episode return",
    r"(?-i:RMSE / spread)": "NRMSE",
    r"hours in the loop": "training hours",
    r"measured alike": "not comparable: settings differ",
    r"\bsentences?\b": "error message",
    r"by heart": "memorise",
    r"rate that warms up": "learning-rate warm-up",
    r"what a radius is worth": "determines the effective radius",
    r"plain to see|leaves? no trace|have no say|has no say": "say what happens",
}
"""Expressions and what to write instead."""
ALIASES = {
    r"\barms?\b": {
        "mbrl_flat/cli/arguments.py",
        "mbrl_flat/logging/labels.py",
        "mbrl_flat/sweeps/job.py",
        "envs/dmc_custom.py",
        "envs/dmc.py",
    },
    r"\bfilm": {"mbrl_flat/diagnostics/open_loop_probe.py"},
}
"""Files that read an old name from files of users, or mean the word literally."""


def found():
    """``{place: (word, what to write)}`` of every private word."""
    hits = {}
    for path in FILES:
        name = str(path.relative_to(ROOT))
        text = path.read_text(encoding="utf-8")
        for word, better in WORDS.items():
            # Across line ends, too: a phrase may be wrapped.
            pattern = word.replace(" ", r"\s+(?:#\s+)?")
            for match in re.finditer(pattern, text, flags=re.IGNORECASE):
                if name not in ALIASES.get(word, ()):
                    line = text.count("\n", 0, match.start()) + 1
                    hits[f"{name}:{line}"] = (" ".join(match.group().split()), better)
    return hits


def test_code_configurations_and_messages_use_the_words_of_the_field():
    assert found() == {}
