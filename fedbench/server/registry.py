"""Who is in the federation, as Prometheus targets, and what became of those that were.

A client announces itself every few seconds through the server's public port, wherever it runs;
one that stays silent for longer is lost: frozen, or without a network. What outlives a client's
process reports its end, and `public_app.py` notices where nobody does; Flower, which believes in a
silent node for another minute, is told so.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fedbench.records.pacing import Pacing
from fedbench.telemetry.families import family, single
from fedbench.wire import DIED, Announcement, Ending, NameTakenError, Offer

_FORGOTTEN_SECONDS = 120.0  # Flower believes in a silent node for 60
REMEMBERED_SECONDS = 600.0  # as one that left
SILENCE_SECONDS = 12.0
MOST_CLIENTS = 10_000
"""Names that are remembered: whoever reaches the server may say another one each time."""
HUNG_UP = f"{DIED}, or its connection broke"
LATE_SECONDS = 3.0

K = TypeVar("K")
V = TypeVar("V", "_Entry", "_Loss")


class UnknownInstanceError(Exception):
    """No client announced itself with this name and instance."""


class GoneError(Exception):
    """The client said goodbye, or is known to be dead."""


class FullError(Exception):
    """More names came than a federation may have."""


@dataclass(frozen=True)
class _Entry:
    announcement: Announcement
    address: str
    time: float
    hung_up: bool = False


@dataclass(frozen=True)
class Presence:
    """A client that is here, or was in the last ten minutes."""

    client: str
    device: str
    here: bool


@dataclass(frozen=True)
class _Loss:
    reason: str
    time: float
    guessed: bool  # from a silence: whoever knows better may still say so


class Registry:
    """The clients, by name. Thread-safe; `sign_off(node_id)` tells Flower who is gone.

    `known(node_id)` is false of a node that Flower never heard of: it was an earlier server's.
    `expire` is called every `pulse` seconds: where it was not, the server itself was frozen, and
    heard nobody.
    """

    def __init__(
        self,
        sign_off: Callable[[int], object],
        clock: Callable[[], float] = time.monotonic,
        known: Callable[[int], bool] = lambda _: True,
        pulse: float = math.inf,
    ) -> None:
        self._late = pulse + LATE_SECONDS
        self._expired = clock()
        self._sign_off = sign_off
        self._node_known = known
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._losses: dict[int | str, _Loss] = {}  # by node, or by client where that is unknown
        self._seen: dict[str, _Entry] = {}  # those that left included
        self._gone: dict[tuple[str, str], _Entry] = {}  # by client and instance
        self._lock = threading.Lock()
        self._lost: dict[str, int] = {}  # how often, by the name of each client that ever came
        self.joined = 0
        """Clients that came so far."""
        self.run: Offer | None = None
        """What the latest run is of, for whoever wants to join."""

    @property
    def silence(self) -> float:
        """Seconds of silence after which a client is lost, as the latest run has it."""
        return self.run.experiment.silence_seconds if self.run else SILENCE_SECONDS

    def announce(self, announcement: Announcement, address: str) -> None:
        """Keep the client listed; `address` is the peer address the server saw.

        Raises:
            NameTakenError: a client of that name is alive and is not this one.
            GoneError: this one is gone, or was a client of an earlier server's.
            FullError: it is new, and too many came.
        """
        name = announcement.client
        with self._lock:
            self._expire()
            if (name, announcement.instance) in self._gone:
                raise GoneError(name)
            if name not in self._lost and len(self._lost) >= MOST_CLIENTS:
                raise FullError(f"{MOST_CLIENTS} clients came, and are the most")
            if announcement.node_id and not self._node_known(announcement.node_id):
                raise GoneError(name)
            known = self._entries.get(name)
            if known and known.announcement.instance != announcement.instance:
                if not known.hung_up:
                    raise NameTakenError(name)
                self._lose(known, HUNG_UP)
            self.joined += name not in self._entries
            self._lost.setdefault(name, 0)  # so that Prometheus sees it grow
            entry = _Entry(announcement, address, self._clock())
            self._entries[name] = self._seen[name] = entry

    def leave(self, client: str, instance: str) -> None:
        """Forget a client that says goodbye."""
        with self._lock:
            if known := self._known(client, instance):
                self._remove(known)

    def hung_up(self, client: str, instance: str) -> None:
        """Note that a client waits for no answer any more: it is dead, or will be back."""
        with self._lock:
            if known := self._known(client, instance):
                self._entries[client] = replace(known, hung_up=True)

    def miss(self, client: str, instance: str) -> None:
        """Forget a client that hung up and has not been heard of since."""
        with self._lock:
            known = self._known(client, instance)
            if known and known.hung_up:
                self._lose(known, HUNG_UP)

    def expire(self) -> None:
        """Give up those of whom nothing was heard for too long."""
        with self._lock:
            if self._was_frozen():
                now = self._clock()
                self._entries = {name: replace(e, time=now) for name, e in self._entries.items()}
            self._expired = self._clock()
            self._expire()

    def _was_frozen(self) -> bool:
        return self._clock() - self._expired > self._late

    def end(self, client: str, instance: str, ending: Ending) -> None:
        """Forget a client that died, and remember what it died of.

        Raises:
            UnknownInstanceError: this is not a client that announced itself.
        """
        with self._lock:
            if known := self._known(client, instance):
                self._lose(known, ending.reason(known.announcement.device), guessed=False)
            elif not self._explain(client, instance, ending):
                raise UnknownInstanceError(client)

    def reason(self, node_id: int, client: str) -> str | None:
        """Say why the node, which may be this client's, is gone; None if unknown."""
        with self._lock:
            losses = self._within(_FORGOTTEN_SECONDS, self._losses)
            loss = losses.get(node_id) or losses.get(client)
        return loss.reason if loss else None

    def targets(self) -> list[dict[str, object]]:
        """Return the clients in the format of Prometheus' HTTP service discovery."""
        with self._lock:
            live = sorted(self._entries.items())
        return [
            {
                "targets": [_host_port(entry.address, entry.announcement.metrics_port)],
                "labels": {"client": name, "device": entry.announcement.device},
            }
            for name, entry in live
        ]

    def pacing(self) -> dict[str, Pacing]:
        """Return how each client keeps its device's pace, of those that say so."""
        with self._lock:
            said = {name: entry.announcement.pacing for name, entry in self._entries.items()}
        return {name: pacing for name, pacing in said.items() if pacing}

    def presence(self) -> list[Presence]:
        """Return who is here, and who left within the last ten minutes, by name."""
        with self._lock:
            here = self._entries.keys()
            left = self._within(REMEMBERED_SECONDS, self._seen)
            self._seen = {**left, **self._entries}
            return [
                Presence(name, entry.announcement.device, name in here)
                for name, entry in sorted(self._seen.items())
            ]

    def lost(self) -> dict[str, int]:
        """Count how often each client that ever came went without a goodbye, by name."""
        with self._lock:
            return dict(self._lost)

    def _known(self, client: str, instance: str) -> _Entry | None:
        """Return the client's entry, if it is this instance that is listed."""
        known = self._entries.get(client)
        return known if known and known.announcement.instance == instance else None

    def _remove(self, entry: _Entry) -> None:
        name = entry.announcement.client
        del self._entries[name]
        entry = replace(entry, time=self._clock())
        self._seen[name] = entry
        self._gone = self._within(_FORGOTTEN_SECONDS, self._gone)
        self._gone[name, entry.announcement.instance] = entry

    def _expire(self) -> None:
        if self._was_frozen():
            return
        silence, now = self.silence, self._clock()
        for entry in list(self._entries.values()):
            allowed = silence + entry.announcement.round_trip  # in which the next is on its way
            if now - entry.time > allowed:
                self._lose(entry, f"nothing was heard from it for {allowed:.3g} s")

    def _lose(self, entry: _Entry, reason: str, *, guessed: bool = True) -> None:
        """Remove a client that went without a goodbye, and tell Flower."""
        self._remove(entry)
        said = entry.announcement
        self._lost[said.client] += 1
        self._losses = self._within(_FORGOTTEN_SECONDS, self._losses)
        self._losses[said.node_id or said.client] = _Loss(reason, self._clock(), guessed)
        if said.node_id:
            self._sign_off(said.node_id)

    def _explain(self, client: str, instance: str, ending: Ending) -> bool:
        """Say what a client died of that was missed before; return whether there is one."""
        if (entry := self._gone.get((client, instance))) is None:
            return False
        key = entry.announcement.node_id or client
        if (loss := self._losses.get(key)) is None or not loss.guessed:
            return False
        reason = ending.reason(entry.announcement.device)
        self._losses[key] = replace(loss, reason=reason, guessed=False)
        return True

    def _within(self, seconds: float, known: dict[K, V]) -> dict[K, V]:
        oldest = self._clock() - seconds
        return {key: value for key, value in known.items() if value.time >= oldest}


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Census(Collector):
    """Who is in the federation, as metrics: it asks the registry when Prometheus asks."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of clients that are here, and of those that left or were lost."""
        present: dict[tuple[str, ...], float] = {
            (known.client, known.device): known.here for known in self._registry.presence()
        }
        yield family("fedbench_client_present", present)
        yield single("fedbench_client_joined_total", self._registry.joined)
        lost: dict[tuple[str, ...], float] = {
            (client,): times for client, times in self._registry.lost().items()
        }
        yield family("fedbench_client_lost_total", lost)
