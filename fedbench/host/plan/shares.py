"""How fast the host trains and how fast the devices are -> what each device gets of it. Pure.

A device that trains `speed` samples/s needs `speed / (what one host core trains)` cores. Where the
host has too few for all, one dilation D slows every device alike: emulated seconds are wall
seconds / D, and ratios hold. A quota goes beyond the need by `MARGIN`, for the host's own speed
drifts; the client's pace (`fedbench.learning.pace`) keeps it from being used up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil

from fedbench.errors import HostError
from fedbench.records.clock import REAL_TIME, Dilation

MARGIN = 1.3
"""Quota / need. Measured: one and the same share trained 17 % more or less minutes later."""
PERIODS = (0.1, 1.0)
"""Shortest and longest period of the scheduler that is used, in seconds; 1 s is the kernel's."""
_STEPS = 40  # of the bisection: far below the two digits that a dilation is rounded to


@dataclass(frozen=True)
class Demand:
    """A device: what it trains, in samples per emulated second.

    `single` of one client alone, `together` of all its clients. `host` is what this host trains of
    the same workload, in samples/s by number of threads, each thread with a core of its own.
    """

    name: str
    single: float
    together: float
    host: Mapping[int, float]


@dataclass(frozen=True)
class Part:
    """A device's part of the host.

    `need` is what it takes at the calibrated speed, `quota` what it may take, in CPUs; `cores` are
    its own, where the host has enough for all.
    """

    threads: int
    need: float
    quota: float
    cores: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Solution:
    """The factor by which all devices are slowed, and the part of each."""

    dilation: Dilation
    parts: tuple[Part, ...]


def solve(demands: Sequence[Demand], cpus: int, dilation: float | None = None) -> Solution:
    """Take the given dilation, or the smallest at which all devices' quotas fit into `cpus`.

    Raises:
        HostError: the given dilation is too small for this host.
    """
    least = _least_dilation(demands, cpus)
    if dilation is not None and dilation < least:
        raise HostError(
            f"dilation {dilation:g} is too small for this host: these devices need {least:g}",
            f"set dilation to {least:g} or more, or leave it out",
        )
    chosen = Dilation(dilation or least)
    parts = [_part(demand, chosen) for demand in demands]
    assert all(parts)  # noqa: S101 (feasible)
    return Solution(chosen, tuple(_with_cores([part for part in parts if part], cpus)))


def period_seconds(quota: float, step_cpu_seconds: float) -> float:
    """Return a period in which the quota suffices for a whole step, within `PERIODS`."""
    shortest, longest = PERIODS
    return min(max(ceil(step_cpu_seconds / quota * 100) / 100, shortest), longest)


def _least_dilation(demands: Sequence[Demand], cpus: int) -> float:
    if _fits(demands, cpus, REAL_TIME):
        return REAL_TIME
    low, high = 1.0, 2.0
    while not _fits(demands, cpus, Dilation(high)):
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _fits(demands, cpus, Dilation(middle)) else (middle, high)
    return ceil(high * 100) / 100


def _fits(demands: Sequence[Demand], cpus: int, dilation: Dilation) -> bool:
    parts = [_part(demand, dilation) for demand in demands]
    if not all(parts):
        return False
    return sum(part.quota for part in parts if part) <= cpus


def _part(demand: Demand, dilation: Dilation) -> Part | None:
    """Take the fewest threads that are fast enough; None where no number of them is."""
    for threads, speed in sorted(demand.host.items()):
        if dilation.wall_rate(demand.single) * MARGIN <= speed:
            need = threads * dilation.wall_rate(demand.together) / speed
            return Part(threads, need, need * MARGIN)
    return None


def _with_cores(parts: Sequence[Part], cpus: int) -> list[Part]:
    """Give disjoint cores, where there are enough for every device's quota."""
    cores_needed = [max(part.threads, ceil(part.quota - 1e-9)) for part in parts]
    if sum(cores_needed) > cpus:
        return list(parts)
    free = count()
    return [
        Part(part.threads, part.need, part.quota, tuple(next(free) for _ in range(cores)))
        for part, cores in zip(parts, cores_needed, strict=True)
    ]
