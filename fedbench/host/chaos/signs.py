"""What a run's folder says of a fault: when it was known, who was missing, and what was lost.

Lines are read as they are, and not as records: a later version may say more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fedbench.config import Experiment
from fedbench.host.chaos.scenario import When
from fedbench.records import Record, read_lines
from fedbench.records.rounds import ROUNDS_FILE

Event = Mapping[str, Any]

# What an event says of a client to whom nothing happened.
_ORDINARY = {"trained", "evaluated", "not_held", "progress"}
# What a run says of itself where its server was lost.
_OF_SERVER = {"started", "error", "stopped", "resumed", "restarted", "repaired"}


class Sighting(Record):
    """When somebody first said what had happened, in which words."""

    at: datetime
    words: str


class MissedRound(Record):
    """A client that took no part in a round, or not to its end, and why."""

    round: int
    client: str
    why: str


def began(events: Iterable[Event], when: When) -> bool:
    """Tell whether the phase of the round has begun that a fault waits for."""
    told = [event for event in events if event.get("round") == when.round]
    asked = {name for event in told if event["event"] == "round" for name in event["clients"]}
    if when.phase == "training":
        return bool(asked)
    if when.phase == "between":
        return any(event["event"] == "recorded" for event in told)
    if when.phase == "aggregating":
        return any(event["event"] == "trained" for event in told)
    return bool(asked) and asked <= {e["client"] for e in told if e["event"] == "evaluated"}


def known(events: Iterable[Event], since: datetime, victim: str) -> Sighting | None:
    """Return when the run first said something of the victim, a client or the server.

    That it starts says nothing the first time.
    """
    started = 0
    for event in events:
        at = datetime.fromisoformat(event["time"])
        started += event["event"] == "started"
        first = event["event"] == "started" and started == 1
        if at < since or first or not _concerns(event, victim):
            continue
        words = event.get("reason") or ""
        return Sighting(at=at, words=f"{event['event']}: {words}" if words else event["event"])
    return None


def recorded(
    events: Iterable[Event], since: datetime, victim: str, missed_rounds: Iterable[MissedRound]
) -> Sighting | None:
    """Return when it was recorded that the victim missed a round, of a run that said nothing."""
    why = {one.round: one.why for one in missed_rounds if one.client == victim}
    for event in events:
        at = datetime.fromisoformat(event["time"])
        if event["event"] == "recorded" and at >= since and event["round"] in why:
            return Sighting(at=at, words=f"recorded: {why[event['round']]}")
    return None


def _concerns(event: Event, victim: str) -> bool:
    if victim == "server" and event["event"] in _OF_SERVER:
        return True
    if event["event"] in _ORDINARY:
        return False
    return victim in (event.get("client"), event.get("service"))


def missed(folder: Path, clients: Sequence[str]) -> list[MissedRound]:
    """Return who missed which of the recorded rounds; `clients` should be in all of them."""
    found = []
    for record in read_lines(folder / ROUNDS_FILE):
        there = {client["client"]: client for client in record["clients"]}
        for name in clients:
            if name not in there:
                why: str | None = "it was not there"
            else:
                said = (there[name].get("missing"), there[name].get("error"))
                why = ": ".join(map(str, filter(None, said)))
            if why:
                found.append(MissedRound(round=record["round"], client=name, why=why))
    return found


def rounds_lost(folder: Path, events: Iterable[Event]) -> int:
    """Count the rounds that were begun again, and those that nobody trained in."""
    begun = Counter(event["round"] for event in events if event["event"] == "round")
    again = sum(times - 1 for times in begun.values())
    idle = 0
    for record in read_lines(folder / ROUNDS_FILE):
        errors = [client.get("error") or "" for client in record["clients"]]
        idle += all(error.startswith("train: ") for error in errors)
    return again + idle


def lost(folder: Path, before: bytes, finished: Experiment | None) -> list[str]:
    """List what a run lost of what it had recorded, and what is not as it should be.

    `before` is what was in `rounds.jsonl` when the fault began; `finished` is the experiment of a
    run that says that it finished.
    """
    rounds = folder / ROUNDS_FILE
    content = rounds.read_bytes() if rounds.exists() else b""
    losses = [] if content.startswith(before) else ["rounds that were recorded before are changed"]
    try:
        records = [json.loads(line) for line in content.splitlines()]
        numbers = [record["round"] for record in records]
    except (ValueError, LookupError) as error:
        return [*losses, f"{ROUNDS_FILE} cannot be read: {error}"]
    if numbers != list(range(1, len(numbers) + 1)):
        losses.append(f"the recorded rounds are {numbers}")
    if finished is not None:
        if len(numbers) != finished.rounds:
            losses.append(f"{len(numbers)} of {finished.rounds} rounds are recorded")
        if finished.task == "train":
            losses += _broken(folder / "model.safetensors")
    if any(not record.get("below_minimum") for record in records):  # such a one changes nothing
        losses += _broken(folder / "checkpoint.safetensors")
    return losses


def _broken(path: Path) -> list[str]:
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        return [f"{path.name} cannot be read: {error}"]
    wrong = sum(int(np.count_nonzero(~np.isfinite(array))) for array in arrays.values())
    return [f"{wrong} numbers in {path.name} are NaN or infinite"] if wrong else []
