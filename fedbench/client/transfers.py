"""What passes between this client and the server, and how long it takes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from fedbench.client.node import WIRE_PARTS, WirePart
from fedbench.telemetry.timing import Timing
from fedbench.telemetry.work import WorkObserver


class Transfers:
    """Counts bytes and seconds, for the metrics and for the next reply."""

    def __init__(self, metrics: WorkObserver) -> None:
        self._metrics = metrics
        self._sent = self._received = 0
        self._timing = Timing[WirePart]()

    def transferred(self, *, sent: int = 0, received: int = 0, model: bool = False) -> None:
        """Count bytes that were exchanged, in what was timed last."""
        self._metrics.transferred(
            sent=sent, received=received, seconds=self._timing.last, model=model
        )
        self._sent += sent
        self._received += received

    def timed(self, part: WirePart) -> AbstractContextManager[None]:
        """Add what the block takes."""
        return self._timing.measure(part)

    def take(self) -> dict[str, Any]:
        """Return bytes and seconds since the last reply, for a reply cannot count itself.

        They are empty where no bytes are counted: the stock node transfers in another process.
        """
        lap = self._timing.lap()
        taken = {"bytes_sent": self._sent, "bytes_received": self._received}
        self._sent = self._received = 0
        seconds = {f"{part}_seconds": float(lap[part]) for part in WIRE_PARTS}
        return taken | seconds if any(taken.values()) else {}
