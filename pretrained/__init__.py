"""Small agents that were trained with mbrl_flat: a folder each, with a card and weights alone."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent

CARDS: dict[str, dict[str, Any]] = {
    file.parent.name: json.loads(file.read_text(encoding="utf-8"))
    for file in sorted(FOLDER.glob("*/card.json"))
}
"""Card of each agent by its name: agent, task, seed, steps, return and command."""
