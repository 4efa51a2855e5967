"""Who is in the federation: the clients that announced themselves, as Prometheus targets.

A client announces itself every few seconds through the server's public port, wherever it runs;
one that stays silent for `EXPIRES_SECONDS` left the federation and is no longer scraped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

EXPIRES_SECONDS = 30.0


class Announcement(BaseModel):
    """What a client says of itself. `instance` tells a restart from a second client of one name."""

    model_config = ConfigDict(extra="forbid")

    client: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")
    device: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")
    instance: str
    metrics_port: int = Field(ge=1, le=65535)


class NameTakenError(Exception):
    """Another live client already has this name."""


@dataclass(frozen=True)
class _Entry:
    announcement: Announcement
    address: str
    seen: float


class Registry:
    """The live clients, by name. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        self.run: dict[str, object] | None = None
        """Experiment and data key of the latest run, for whoever wants to join."""

    def announce(self, announcement: Announcement, address: str) -> None:
        """Keeps the client listed; `address` is the peer address the server saw.

        Raises:
            NameTakenError: a client of that name is alive and is not this one.
        """
        with self._lock:
            known = self._live().get(announcement.client)
            if known and known.announcement.instance != announcement.instance:
                raise NameTakenError(announcement.client)
            entry = _Entry(announcement, address, self._clock())
            self._entries[announcement.client] = entry

    def leave(self, client: str, instance: str) -> None:
        """Forgets a client that says goodbye."""
        with self._lock:
            known = self._entries.get(client)
            if known and known.announcement.instance == instance:
                del self._entries[client]

    def targets(self) -> list[dict[str, object]]:
        """Live clients in the format of Prometheus' HTTP service discovery."""
        with self._lock:
            live = sorted(self._live().items())
        return [
            {
                "targets": [_host_port(entry.address, entry.announcement.metrics_port)],
                "labels": {"client": name, "device": entry.announcement.device},
            }
            for name, entry in live
        ]

    def _live(self) -> dict[str, _Entry]:
        oldest = self._clock() - EXPIRES_SECONDS
        self._entries = {name: e for name, e in self._entries.items() if e.seen >= oldest}
        return self._entries


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
