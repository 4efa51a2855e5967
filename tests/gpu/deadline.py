"""Time that is limited: for a whole session, and for each part of it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """A moment, `seconds` from now, after which nothing may begin; `clock` counts seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Return the seconds until then, never less than 0."""
        return max(0.0, self._end - self._clock())

    def part(self, seconds: float | None = None, *, share: float | None = None) -> Deadline:
        """Return a deadline after `seconds`, or after a share (0 to 1) of what is left.

        It is never later than this one.
        """
        wanted = self.left() if seconds is None else seconds
        if share is not None:
            wanted = min(wanted, share * self.left())
        return Deadline(min(wanted, self.left()), self._clock)
