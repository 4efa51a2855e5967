"""Does what a scenario says, beside whoever follows the run, and looks when it is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self

from fedbench.errors import FedbenchError
from fedbench.host.chaos import signs
from fedbench.host.chaos.signs import MissedRound, Sighting
from fedbench.host.chaos.victim import Fault
from fedbench.records.events import read_events
from fedbench.records.rounds import ROUNDS_FILE
from fedbench.records.runs import Run

_POLL_SECONDS = 0.02
_LOOK_SECONDS = 0.25


class Saboteur(threading.Thread):
    """Waits for a scenario's moment in a run, makes its fault, and ends it in time.

    All that lasts as long as a block, at whose end the run has to be over.

    `began` is when the fault was made, None while it was not; `before` what the run had recorded of
    its rounds by then. `problem` says why it was not made.
    """

    def __init__(self, fault: Fault, run: Run) -> None:
        super().__init__(name="saboteur", daemon=True)
        self.began: datetime | None = None
        self.before = b""
        self.problem: str | None = None
        self.seen: Sighting | None = None
        """What could be seen of it beside the run's events."""
        self._made = threading.Event()
        self._fault = fault
        self._run = run
        self._over = threading.Event()
        self._undone = False

    def run(self) -> None:
        """Do it."""
        when = self._fault.scenario.when
        try:
            if when.round and not self._wait():
                self.problem = f"the run was over before the {when.phase} of round {when.round}"
                return
            self._make()
        except (FedbenchError, OSError) as error:
            self.problem = str(error)
        finally:
            self._made.set()

    def wait_if_before(self) -> None:
        """Wait until the fault is made, or cannot be, if it comes before the run."""
        if not self._fault.scenario.when.round:
            self._made.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Undo the fault: the run is over."""
        self._over.set()
        self.join()
        self._undo()

    def known(self, missed: Sequence[MissedRound]) -> Sighting | None:
        """Return when somebody first said that something had happened, or recorded it."""
        if self.began is None:
            return None
        victim, events = self._fault.victim.service, read_events(self._run.path)
        told = signs.known(events, self.moment(), victim)
        recorded = signs.recorded(events, self.moment(), victim, missed)
        sightings = [sighting for sighting in (told, recorded, self.seen) if sighting]
        return min(sightings, key=lambda sighting: sighting.at, default=None)

    def moment(self) -> datetime:
        """Return when it happened, in milliseconds, as events have it."""
        assert self.began is not None  # noqa: S101 (only of a fault that was made)
        moment = self._fault.began() or self.began
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def _wait(self) -> bool:
        """Wait for the moment; return False if the run was over before."""
        when = self._fault.scenario.when
        while not signs.began(read_events(self._run.path), when):
            if self._over.wait(_POLL_SECONDS):
                return False
        return not self._over.wait(when.after)

    def _make(self) -> None:
        rounds = self._run.path / ROUNDS_FILE
        self.before = rounds.read_bytes() if rounds.exists() else b""
        self._fault.look()
        self.began = datetime.now(UTC)
        self._fault.begin()
        self._made.set()
        until = time.monotonic() + (self._fault.scenario.lasts or float("inf"))
        while not self._over.wait(_LOOK_SECONDS) and time.monotonic() < until:
            if self.seen is None and (words := self._fault.noticed()):
                self.seen = Sighting(at=datetime.now(UTC), words=words)
        self._undo()

    def _undo(self) -> None:
        if self.began and not self._undone:
            self._undone = True
            self._fault.end()
