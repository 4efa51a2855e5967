"""The time by which Flower goes: it does not jump, and all in a federation have the server's.

Flower signs requests, believes in nodes and tasks, and lets messages expire by the wall clock. Set
that clock forward by an hour, and every node and the run itself are dead; a device whose own is
ten minutes off is not let in. So a process reads the wall clock once, and counts from there; a node
counts from what its server's answer says.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import formatdate, parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from types import ModuleType, SimpleNamespace

TOLD_SECONDS = 5.0
"""Flower bears with a clock that is off by as much."""
_TIMEOUT_SECONDS = 10.0
_NO_CHECK_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME

log = logging.getLogger("fedbench.clock")


class SteadyClock:
    """The wall clock as it was at the start, and the seconds since."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._base = wall() - monotonic()

    def timestamp(self) -> float:
        """Return Unix time in seconds."""
        return self._base + self._monotonic()

    def now(self, tz: tzinfo | None = None) -> datetime:
        """Return what `datetime.now` would."""
        return datetime.fromtimestamp(self.timestamp(), tz)

    def advance(self, seconds: float) -> None:
        """Go by a clock that is so much ahead."""
        self._base += seconds


CLOCK = SteadyClock()
"""This process', and that of its forks."""


class EitherTime(datetime):
    """Now, by the steady clock and by the wall clock: the age of a moment is by the nearer one.

    A stock node signs with its computer's wall clock, which may have jumped together with the
    server's; one that learned the time before goes by the steady one.
    """

    @classmethod
    def present(cls) -> datetime:
        """Return the present moment."""
        return cls.fromtimestamp(CLOCK.timestamp(), UTC)

    def __sub__(self, moment: datetime) -> timedelta:  # type: ignore[override]
        ages = (present - moment for present in (now(), wall_clock()))
        return min(ages, key=abs)


def wall_clock() -> datetime:
    """Return the time of this computer, as it is set."""
    return datetime.now(UTC)


def now() -> datetime:
    """Return the time of this process, for its records."""
    return CLOCK.now(UTC)


def hold(flower: ModuleType) -> None:
    """Let Flower go by the steady clock; `flower` is its module with `now()`."""
    # Whoever imported `now` by its name has it, too: it looks this up each time.
    vars(flower)["datetime"] = SimpleNamespace(datetime=CLOCK, UTC=UTC)


def follow(flower: ModuleType, address: str, certificate: bytes) -> None:
    """Let Flower go by the clock of the server at `address` (host:port); say how far ours is off.

    Where the server does not answer, it goes by ours.
    """
    hold(flower)
    ahead = seconds_ahead(address, certificate) or 0.0
    if abs(ahead) > TOLD_SECONDS:
        CLOCK.advance(ahead)
        log.warning("%s: the server's is used", describe(ahead))


def describe(ahead: float) -> str:
    """Say how far this device's clock is off, whose server is so many seconds ahead."""
    return f"this device's clock is off by {-ahead:+.0f} s from its server's"


def seconds_ahead(address: str, certificate: bytes) -> float | None:
    """Ask how many seconds a server's clock is ahead of ours; None where it does not say."""
    context = ssl.create_default_context(cadata=certificate.decode())
    # Its certificate may be of tomorrow, to a device that was switched on without a clock.
    context.verify_flags |= _NO_CHECK_TIME
    connection = HTTPSConnection(address, timeout=_TIMEOUT_SECONDS, context=context)
    try:
        connection.request("HEAD", "/")
        date = connection.getresponse().headers.get("date")
        return parsedate_to_datetime(date).timestamp() - CLOCK.timestamp() if date else None
    except (OSError, HTTPException, ValueError) as error:
        log.info("the server does not say what time it is: %s", error)
        return None
    finally:
        connection.close()


def http_date() -> str:
    """Return the time as a header of HTTP has it."""
    return formatdate(CLOCK.timestamp(), usegmt=True)
