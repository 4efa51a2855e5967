"""`summary.json`: how a run ended, and all its rounds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from fedbench.records.clock import REAL_TIME, Dilation, EmulatedSeconds, WallSeconds
from fedbench.records.events import EVENTS_FILE, read_events
from fedbench.records.facts import RunFacts
from fedbench.records.files import Moment, Record, is_disk_full, replace_text
from fedbench.records.lines import tell_half_line
from fedbench.records.rounds import ROUNDS_FILE, RoundRecord, read_rounds, require_moment

SUMMARY_FILE = "summary.json"
log = logging.getLogger("fedbench.records")
# The last event of a run, and what its status then is.
ENDINGS = {"finished": "finished", "stopped": "interrupted", "error": "failed"}
_STARTS = ("started", "restarted")


class Summary(Record):
    """How a run ended, and all its rounds.

    `total_seconds` go from when it was made to its last event, without those between an end and the
    start after it, where it went on.
    `rounds_not_held` counts them by client, for those that have a target. A run that does not
    `emulates`, in one program, has wall seconds, and they are no device's.
    """

    run: str
    status: str
    experiment: str
    profile: str
    started_at: Moment
    total_seconds: WallSeconds
    rounds: list[Annotated[RoundRecord, AfterValidator(require_moment)]]
    error: str | None = None
    dilation: Dilation = REAL_TIME
    rounds_not_held: dict[str, int] = Field(default_factory=dict)
    emulates: bool = True

    @property
    def emulated_seconds(self) -> EmulatedSeconds:
        """The whole run's, on the emulated devices."""
        return self.dilation.emulated(self.total_seconds)


def summarise(folder: Path) -> Summary:
    """Return the summary of a run as its records have it now, however the run ended.

    Raises:
        DamagedFileError: its facts or its rounds cannot be read.
    """
    facts = RunFacts.read(folder)
    events = read_events(folder)
    status, error = ending_of(events)
    rounds = read_rounds(folder)
    return Summary(
        run=folder.name,
        status=status,
        experiment=facts.experiment,
        profile=facts.profile,
        started_at=facts.created,
        total_seconds=_active_seconds(facts.created_at, events),
        rounds=rounds,
        error=error,
        dilation=facts.dilation,
        rounds_not_held=_rounds_not_held(rounds),
        emulates=facts.emulates,
    )


def write_summary(folder: Path) -> Summary:
    """Write `summary.json` and return it; where the disk is full, it is only returned.

    Raises:
        DamagedFileError: as `summarise`.
    """
    for name in (EVENTS_FILE, ROUNDS_FILE):
        tell_half_line(folder / name)
    summary = summarise(folder)
    try:
        replace_text(folder / SUMMARY_FILE, summary.model_dump_json(indent=2) + "\n")
    except OSError as error:
        if not is_disk_full(error):
            raise
        log.warning("%s cannot be written: the disk is full", folder / SUMMARY_FILE)
    return summary


def _active_seconds(created: datetime, events: Sequence[Mapping[str, Any]]) -> WallSeconds:
    """Add up the time before each event, but for that in which the run waited to go on.

    Where its server died without a word, that is from its last event on.
    """
    seconds, before, began, ended = 0.0, created, False, False
    for event in events:
        now, starts = datetime.fromisoformat(event["time"]), event["event"] in _STARTS
        if not ended and not (starts and began):
            seconds += (now - before).total_seconds()
        before, began, ended = now, began or starts, event["event"] in ENDINGS
    return WallSeconds(seconds)


def ending_of(events: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """Return a run's status, and what went wrong where it failed."""
    told = [event for event in events if event["event"] in (*ENDINGS, "started")]
    if not told:
        return "failed", "the server never started it"
    # A start with no ending after it: the server died.
    status = ENDINGS.get(told[-1]["event"], "failed")
    return status, str(told[-1].get("reason", "the server died")) if status == "failed" else None


def _rounds_not_held(rounds: list[RoundRecord]) -> dict[str, int]:
    judged = [c for r in rounds for c in r.clients if c.emulation_error is not None]
    counts = dict.fromkeys((client.client for client in judged), 0)
    for client in judged:
        counts[client.client] += client.not_held is not None
    return counts
