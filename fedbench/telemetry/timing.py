"""Where time goes. Durations only: no two clocks are compared."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Part = TypeVar("Part", bound=str)


class Timing(Generic[Part]):
    """Seconds spent on each of several parts."""

    def __init__(self) -> None:
        self._seconds = Counter[str]()
        self.last = 0.0
        """Seconds of the block that was measured last."""

    @contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """Add what the block takes."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.last = time.monotonic() - start
            self._seconds[part] += self.last  # type: ignore[assignment]

    def lap(self) -> Counter[str]:
        """Return seconds by part since the lap before; a part that was not measured is absent."""
        seconds, self._seconds = self._seconds, Counter()
        return seconds
