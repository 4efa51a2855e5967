"""A part of a GPU: of its memory, and of its time.

A GPU has no quota that a container could be given: the process keeps to its part by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def limit_memory(memory: int, device: torch.device) -> float:
    """Lets this process allocate `memory` bytes of the GPU at most; returns the fraction of it.

    Beyond that, torch raises its out-of-memory error, as on a GPU of that size.
    """
    total = torch.cuda.get_device_properties(device).total_memory
    fraction = min(1.0, memory / total)
    torch.cuda.set_per_process_memory_fraction(fraction, device)
    return fraction


class TimeShare:
    """After each batch, waits so long that the GPU was busy for `share` of the time."""

    def __init__(
        self,
        share: float,
        synchronise: Callable[[], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._share = share
        self._synchronise = synchronise
        self._sleep = sleep
        self._clock = clock
        self._began = clock()

    def after_batch(self) -> None:
        """Waits for the GPU, and then as long as others would have it."""
        self._synchronise()
        busy = self._clock() - self._began
        if (rest := busy * (1 / self._share - 1)) > 0:
            self._sleep(rest)
        self._began = self._clock()
