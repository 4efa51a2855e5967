"""What a container had of the host's CPUs between two moments."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fedbench.telemetry.cgroup import Cgroup

_STEAL = 8  # its column in a line of /proc/stat (proc(5)), after the CPU's name


@dataclass(frozen=True)
class Used:
    """Seconds of CPU time, of being throttled (added up over CPUs), and of steal.

    `steal` is the mean over the CPUs that the container may run on.
    """

    cpu: float
    throttled: float
    steal: float


class Usage:
    """Counts from its making, or from the lap before."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup
        self._before = self._now()

    def lap(self) -> Used:
        """What was used since the lap before."""
        before, self._before = self._before, self._now()
        return Used(
            self._before.cpu - before.cpu,
            self._before.throttled - before.throttled,
            self._before.steal - before.steal,
        )

    def _now(self) -> Used:
        cpu = self._cgroup.cpu()
        return Used(cpu.seconds, cpu.throttled_seconds, steal_seconds(self._cgroup))


def steal_seconds(cgroup: Cgroup) -> float:
    """Seconds, since the host started, that its hypervisor kept this container's CPUs from it."""
    own = {f"cpu{number}" for number in cgroup.cpus()}
    stat = (cgroup.root / "proc/stat").read_text()
    lines = (line.split() for line in stat.splitlines())
    ticks = [int(words[_STEAL]) for words in lines if words[0] in own]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") / len(ticks) if ticks else 0.0
