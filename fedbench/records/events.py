"""`events.jsonl`: what happened in a run, for whoever watches it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedbench.records.files import json_object, parse_moment
from fedbench.records.lines import append_line, skim_lines

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
    "restarted": {"reason", "after_round"},
    "revived": {"reason", "service"},
    "left_out": {"client", "data"},
}
"""What an event says besides: its readers count on that."""


def append_event(folder: Path, event: str, moment: datetime | None = None, **facts: object) -> None:
    """Append one line to `events.jsonl`, for whoever watches: it happened at that moment, or now.

    Raises:
        OSError: it cannot be written.
    """
    time = (moment or datetime.now(UTC)).isoformat(timespec="milliseconds")
    append_line(folder / EVENTS_FILE, json.dumps({"time": time, "event": event} | facts))


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return what happened in a run so far, oldest first; damaged lines are skipped.

    Each event has its name as `event` and, as `time`, when it happened.
    """
    return skim_lines(folder / EVENTS_FILE, parse_event)


def parse_event(line: bytes) -> dict[str, Any]:
    """Parse a line of `events.jsonl`.

    Raises:
        ValueError, TypeError, LookupError: it is no event.
    """
    event = json_object(line)
    parse_moment(event["time"])
    if not isinstance(event["event"], str):
        raise ValueError("an event without a name")
    if missing := _FACTS.get(event["event"], set()) - event.keys():
        raise ValueError(f"{event['event']} without {min(missing)}")
    return event
