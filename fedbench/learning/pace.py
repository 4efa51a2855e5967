"""Keeps a training loop to the speed of the device that is emulated.

After each batch the loop waits until the device would have finished it, too. A quota alone errs by
as much as the host's own speed drifts, a fifth within minutes on a shared machine; a deadline does
not (DECISIONS.md, 2026-11-24). A loop that is late runs on without waiting until it has caught up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class Speed(NamedTuple):
    """The device's speed: `single` samples per wall second alone, `together` of all clients."""

    single: float
    together: float

    def of_each(self, active: int) -> float:
        """Return the samples/s of each of `active` clients that train at once."""
        return min(self.single, self.together / active)


class Pace:
    """The deadlines of one epoch; `active` says how many clients are busy on the device now."""

    def __init__(
        self,
        speed: Speed,
        active: Callable[[], int] = lambda: 1,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._speed = speed
        self._active = active
        self._sleep = sleep
        self._samples = 0
        self.due = 0.0
        """Seconds since the epoch's start at which the device has done what was reported."""

    def wait(self, samples: int, seconds: float) -> float:
        """Wait until `samples` of the epoch are due, of which `seconds` have passed.

        Return the seconds by which they are late, 0 where it waited.
        """
        if samples <= self._samples:  # a new epoch
            self._samples, self.due = 0, 0.0
        self.due += (samples - self._samples) / self._speed.of_each(self._active())
        self._samples = samples
        if (left := self.due - seconds) > 0:
            self._sleep(left)
        return max(-left, 0.0)
