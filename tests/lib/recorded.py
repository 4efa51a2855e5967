"""What the Prometheus of a real federation answered to `fedbench top`, amid a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedbench.host.prometheus import Sample, Series

FILE = Path(__file__).parents[1] / "golden" / "top" / "answers.json"


def answers() -> dict[str, dict[str, Any]]:
    """The data of each answer: facts, rates, phases, curves."""
    recorded: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
    return recorded


def top_answers() -> tuple[list[Sample], list[Sample], list[Series], list[Series]]:
    """The same, as a client of Prometheus gives them."""

    def samples(name: str) -> list[Sample]:
        found = answers()[name]["result"]
        return [Sample(item["metric"], float(item["value"][1])) for item in found]

    def series(name: str) -> list[Series]:
        return [
            Series(item["metric"], [(at, float(value)) for at, value in item["values"]])
            for item in answers()[name]["result"]
        ]

    return samples("facts"), samples("rates"), series("phases"), series("curves")
