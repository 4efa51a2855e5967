"""`events.jsonl`: what happened in a run, for whoever watches it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedbench.records.files import json_object, parse_moment
from fedbench.records.lines import skim_lines

EVENTS_FILE = "events.jsonl"
_FACTS = {
    "started": {"after_round"},
    "waiting": {"connected", "needed"},
    "incomplete": {"connected", "needed"},
    "round": {"round", "rounds", "clients"},
    "trained": {"round", "client", "seconds"},
    "evaluated": {"round", "client"},
    "failed": {"round", "client", "reason"},
    "cancelled": {"round", "client", "reason"},
    "below_minimum": {"round", "reason"},
    "not_held": {"round", "client", "reason"},
    "recorded": {"round", "rounds"},
    "progress": {"images", "of", "seconds_left"},
    "unidentified": {"reason"},
    "left_out": {"client", "data"},
}
"""What an event says besides: its readers count on that."""


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return what happened in a run so far, oldest first; damaged lines are skipped.

    Each event has its name as `event` and, as `time`, when it happened.
    """
    return skim_lines(folder / EVENTS_FILE, _parse)


def _parse(line: bytes) -> dict[str, Any]:
    event = json_object(line)
    parse_moment(event["time"])
    if not isinstance(event["event"], str):
        raise ValueError("an event without a name")
    if missing := _FACTS.get(event["event"], set()) - event.keys():
        raise ValueError(f"{event['event']} without {min(missing)}")
    return event
