"""What this container may use and has used, from its own cgroup files (v1 and v2).

Inside a container `os.cpu_count()` and psutil show the host; these files tell the truth. Docker
mounts the container's own cgroup at `/sys/fs/cgroup` (v2) or `/sys/fs/cgroup/<controller>` (v1).
The kernel's cgroup-v2.rst and cgroup-v1/{memory,cpusets}.rst describe the files.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

# v1 writes "no limit" as the largest multiple of the page size below 2^63.
_V1_UNLIMITED = 2**62
_LONGEST = 2**16  # bytes; the longest file, memory.stat, has some two thousand


_STEAL = 8  # its column in a line of /proc/stat (proc(5)), after the CPU's name


@dataclass(frozen=True)
class Cpu:
    """CPU time since the container started.

    `throttled_seconds` is added up over all CPUs, so that it can grow by more than one second a
    second; `throttled_periods / periods` is a share between 0 and 1.
    """

    seconds: float
    throttled_seconds: float
    throttled_periods: int
    periods: int


@dataclass(frozen=True)
class Memory:
    """Memory in bytes; `limit` is None where there is none.

    `used` leaves out file cache that the kernel gives back at once, as `docker stats` does;
    `peak` is the kernel's high-water mark since the container started and counts that cache.
    """

    used: int
    peak: int
    limit: int | None
    oom_kills: int


class Cgroup:
    """The cgroup of this container; `root` is the file system that holds `sys/fs/cgroup`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._base = root / "sys/fs/cgroup"
        self.version = 1 if (self._base / "memory").is_dir() else 2

    def cpu_quota(self) -> float | None:
        """Return CPUs' worth of time per period; None where there is no quota."""
        if self.version == 1:
            quota = self._read("cpu/cpu.cfs_quota_us", "-1")
            period = self._read("cpu/cpu.cfs_period_us", "100000")
        else:
            quota, period = self._read("cpu.max", "max 100000").split()
        return None if quota in ("max", "-1") else int(quota) / int(period)

    def cpus(self) -> set[int]:
        """Return the numbers of the CPUs that this container may run on."""
        v1 = self.version == 1
        file = "cpuset/cpuset.effective_cpus" if v1 else "cpuset.cpus.effective"
        cpus = self._read(file, "")
        return _numbers(cpus) if cpus else os.sched_getaffinity(0)

    def usable_cpus(self) -> float:
        """Return the CPUs' worth of time that this container can use: its quota or its cpuset."""
        return min(float(len(self.cpus())), self.cpu_quota() or math.inf)

    def cpu(self) -> Cpu:
        """Read CPU time used and withheld so far."""
        if self.version == 1:
            stat = self._table("cpu/cpu.stat")
            seconds = int(self._read("cpuacct/cpuacct.usage", "0")) / 1e9
            throttled = stat.get("throttled_time", 0) / 1e9
        else:
            stat = self._table("cpu.stat")
            seconds = stat.get("usage_usec", 0) / 1e6
            throttled = stat.get("throttled_usec", 0) / 1e6
        return Cpu(seconds, throttled, stat.get("nr_throttled", 0), stat.get("nr_periods", 0))

    def memory(self) -> Memory:
        """Read memory used now and at most, its limit, and processes killed for want of it."""
        if self.version == 1:
            current = int(self._read("memory/memory.usage_in_bytes", "0"))
            cache = self._table("memory/memory.stat").get("total_inactive_file", 0)
            peak = int(self._read("memory/memory.max_usage_in_bytes", "0"))
            limit = self._read("memory/memory.limit_in_bytes", "max")
        else:
            current = int(self._read("memory.current", "0"))
            cache = self._table("memory.stat").get("inactive_file", 0)
            peak = int(self._read("memory.peak", str(current)))  # Linux 5.19 and later
            limit = self._read("memory.max", "max")
        unlimited = limit == "max" or int(limit) >= _V1_UNLIMITED
        return Memory(
            max(current - cache, 0), peak, None if unlimited else int(limit), self.oom_kills()
        )

    def oom_kills(self) -> int:
        """Count processes of this container that were killed at a memory limit."""
        file = "memory/memory.oom_control" if self.version == 1 else "memory.events"
        return self._table(file).get("oom_kill", 0)

    def _read(self, name: str, absent: str) -> str:
        try:
            file = os.open(f"{self._base}/{name}", os.O_RDONLY)
        except FileNotFoundError:  # not every kernel has every file, nor has a host's own cgroup
            return absent
        try:  # unbuffered: a dozen of them are read for each scrape, under a small quota
            return os.read(file, _LONGEST).decode().strip()
        finally:
            os.close(file)

    def _table(self, name: str) -> dict[str, int]:
        pairs = (line.split() for line in self._read(name, "").splitlines())
        return {key: int(value) for key, value in pairs}


@dataclass(frozen=True)
class Used:
    """Seconds of CPU time, of being throttled (added up over CPUs), and of steal.

    `steal` is the mean over the CPUs that the container may run on.
    """

    cpu: float
    throttled: float
    steal: float


class Usage:
    """What a container had of the host's CPUs since it was made, or since the lap before."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup
        self._before = self._now()

    def lap(self) -> Used:
        """Return what was used since the lap before."""
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
    """Return the seconds, since the host started, that a hypervisor kept these CPUs from us."""
    usable = {f"cpu{number}" for number in cgroup.cpus()}
    stat = (cgroup.root / "proc/stat").read_text()
    lines = (line.split() for line in stat.splitlines())
    ticks = [int(words[_STEAL]) for words in lines if words[0] in usable]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") / len(ticks) if ticks else 0.0


def _numbers(cpus: str) -> set[int]:
    """Read `0-2,5` as {0, 1, 2, 5}."""
    ranges = (part.split("-") for part in cpus.split(","))
    return {cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)}
