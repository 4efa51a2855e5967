"""How a training uses the computer: threads, arithmetic, a part of a GPU.

A GPU has no quota that a container could be given: the process keeps to its part by itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Precision = Literal["fp32", "tf32", "bf16"]


def set_threads(cpus: float) -> int:
    """Let torch use as many threads as `cpus` can run, at least one, and return their number.

    More threads than the quota fills stall at each barrier until the next period of the scheduler:
    two threads on a one-CPU quota made a step up to four times slower.
    """
    threads = max(1, math.floor(cpus))
    torch.set_num_threads(threads)
    return threads


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute products and convolutions of the block in this precision; weights stay float32.

    `tf32` rounds their inputs to 10 bits of mantissa on a GPU that has such units, and means fp32
    elsewhere. `bf16` is torch's autocast: normalisation and loss stay in float32.
    """
    cudnn: Any = torch.backends.cudnn  # whose attributes mypy does not know
    units: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv)
    before = [unit.fp32_precision for unit in units]
    # Its cache of casted weights must not outlive a captured step.
    bf16 = torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
    )
    try:
        for unit in units:
            unit.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        with bf16:
            yield
    finally:
        for unit, setting in zip(units, before, strict=True):
            unit.fp32_precision = setting


def limit_memory(memory: int, device: torch.device) -> float:
    """Let this process allocate `memory` bytes of the GPU at most; return the fraction of it.

    Beyond that, torch raises its out-of-memory error, as on a GPU of that size.
    """
    total = torch.cuda.get_device_properties(device).total_memory
    fraction = min(1.0, memory / total)
    torch.cuda.set_per_process_memory_fraction(fraction, device)
    return fraction


class TimeShare:
    """Waits after each batch so long that the GPU was busy for `share` of the time."""

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
        """Wait for the GPU, and then for as long as others would have it."""
        self._synchronise()
        busy = self._clock() - self._began
        if (rest := busy * (1 / self._share - 1)) > 0:
            self._sleep(rest)
        self._began = self._clock()
