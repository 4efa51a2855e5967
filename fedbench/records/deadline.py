"""How long the clients of a round may take. Pure.

A device's time is meant: one that is emulated on a host that is too small has the more wall seconds
(`clock.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fedbench.config import Experiment
from fedbench.records.clock import EmulatedSeconds, WallSeconds
from fedbench.records.rounds import EvaluateWork, TrainWork
from fedbench.records.verdict import Emulation

ALLOWANCE_SECONDS = EmulatedSeconds(60.0)
"""Besides training: a device has to load its images, and its server may be busy."""
SECONDS_PER_MEGABYTE = EmulatedSeconds(16.0)
"""There and back over 1 Mbit/s, the slowest of the networks that are emulated (DSL, upwards)."""
UNKNOWN_SECONDS = EmulatedSeconds(3600.0)
"""For a client of which nobody knows how fast it is."""
SLOWEST = 2.0
"""Samples per second that such a client trains at least, where there are very many."""
LONGEST_SECONDS = EmulatedSeconds(43_200.0)
"""In one program, where clients wait for each other, and none is silent."""


class Deadlines:
    """The wall seconds that clients have, from their devices' speeds and from earlier rounds.

    `alone` is False where clients wait for each other's turn. A model has so many `megabytes`
    (10^6 bytes).
    """

    def __init__(self, experiment: Experiment, emulation: Emulation, *, alone: bool = True) -> None:
        self._experiment = experiment
        self._emulation = emulation
        self._alone = alone
        self._sharing = Counter(emulation.computers.values())
        self._trained: dict[str, WallSeconds] = {}
        self._evaluated: dict[str, WallSeconds] = {}
        self._asked: set[str] = set()

    def training(self, clients: Iterable[tuple[str, int | None]], megabytes: float) -> WallSeconds:
        """Return how long clients, each with its training images, have to train.

        One of unknown speed has an hour or more when it is asked for the first time, and later as
        long as the slowest that was seen, if there was one.
        """
        clients = list(clients)
        times = [
            self._until(client, self._training(client, images), megabytes, images or 0)
            for client, images in clients
        ]
        self._asked |= {client for client, _ in clients}
        return max(times, default=self._wall("", LONGEST_SECONDS))

    def evaluation(self, clients: Iterable[str], megabytes: float) -> WallSeconds:
        """Return how long these clients have to evaluate."""
        slowest = max(self._evaluated.values(), default=None)
        times = [self._until(c, self._evaluated.get(c, slowest), megabytes) for c in clients]
        return max(times, default=self._wall("", LONGEST_SECONDS))

    def learn(self, client: str, work: TrainWork | EvaluateWork) -> None:
        """Note how long a client took: later rounds are given their time by it."""
        if isinstance(work, TrainWork):
            known, seconds = self._trained, WallSeconds(sum(work.epoch_seconds))
        else:
            known, seconds = self._evaluated, work.evaluate_seconds or WallSeconds(0.0)
        known[client] = max(seconds, known.get(client, seconds))

    def _until(
        self, client: str, expected: WallSeconds | None, megabytes: float, images: int = 0
    ) -> WallSeconds:
        if self._experiment.round_timeout_seconds is not None:
            return self._wall(client, EmulatedSeconds(self._experiment.round_timeout_seconds))
        if not self._alone:
            return self._wall(client, LONGEST_SECONDS)
        if expected is None:
            work = images * self._experiment.local_epochs / SLOWEST
            known = EmulatedSeconds(max(UNKNOWN_SECONDS, min(work, LONGEST_SECONDS)))
            return self._wall(client, known)
        allowance = EmulatedSeconds(ALLOWANCE_SECONDS + megabytes * SECONDS_PER_MEGABYTE)
        trained = self._experiment.deadline_factor * expected
        return WallSeconds(trained + self._wall(client, allowance))

    def _training(self, client: str, images: int | None) -> WallSeconds | None:
        """Return how long a client should train, None if that is not known."""
        pace = self._emulation.pace.get(client)
        if pace and images is not None and self._experiment.task == "train":
            together = self._sharing[self._emulation.computers.get(client, "")] or 1
            epoch = images / pace.of_each(together)
            seconds = max(
                self._experiment.local_epochs * epoch, self._experiment.local_seconds + epoch
            )
            return WallSeconds(seconds)
        if client in self._trained:
            return self._trained[client]
        return max(self._trained.values(), default=None) if client in self._asked else None

    def _wall(self, client: str, seconds: EmulatedSeconds) -> WallSeconds:
        return self._emulation.dilation_of(client).wall(seconds)
