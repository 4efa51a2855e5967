"""What a real Prometheus answered to `fedbench top`, amid a run (record_top.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedbench.host.watch.prometheus import Sample, Series

FILE = Path(__file__).parents[1] / "golden" / "top" / "answers.json"


def answers() -> dict[str, dict[str, Any]]:
    """The data of each answer: facts, phases, curves, rules."""
    recorded: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
    return recorded


def top_answers() -> tuple[list[Sample], list[Series], list[Series], set[str]]:
    """The same, as a client of Prometheus gives them."""

    def samples(name: str) -> list[Sample]:
        found = answers()[name]["result"]
        return [Sample(item["metric"], float(item["value"][1])) for item in found]

    def series(name: str) -> list[Series]:
        return [
            Series(item["metric"], [(at, float(value)) for at, value in item["values"]])
            for item in answers()[name]["result"]
        ]

    rules = {rule["name"] for group in answers()["rules"]["groups"] for rule in group["rules"]}
    return samples("facts"), series("phases"), series("curves"), rules
