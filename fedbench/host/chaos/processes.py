"""What can become of a container's processes."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from fedbench.engines.containers.runtime.quotas import Quotas
from fedbench.errors import DockerError
from fedbench.host.chaos.scenario import ProcessName
from fedbench.host.chaos.victim import Fault

_SPARE_MEMORY = 32 * 2**20
# As much as any container's own limit allows: the kernel stops it there.
_EAT_MEMORY = "head -c 4G /dev/zero | tail -c 4G > /dev/null"
_USED_MEMORY = (
    "cat /sys/fs/cgroup/memory.current 2>/dev/null "
    "|| cat /sys/fs/cgroup/memory/memory.usage_in_bytes"
)
# The first process is Docker's init; the server forks the executor, and that a ServerApp.
_GENERATIONS: dict[ProcessName, int] = {"main": 1, "worker": 2, "executor": 2, "serverapp": 3}
_KILL_DESCENDANT = (
    "pid=1; for _ in $(seq {}); do pid=$(cut -d' ' -f1 /proc/$pid/task/$pid/children); done; "
    "kill -9 $pid"
)


class Kill(Fault):
    """`docker kill`, after which Docker does not start the container again."""

    def begin(self) -> None:
        """Do it."""
        self.victim.docker("kill")


class StopContainer(Fault):
    """`docker stop`: the container may say goodbye."""

    def begin(self) -> None:
        """Do it."""
        self.victim.docker("stop")


class Crash(Fault):
    """`kill -9` of one process in the container."""

    def begin(self) -> None:
        """Do it."""
        assert self.scenario.process  # noqa: S101 (the scenario is checked)
        self.victim.shell(_KILL_DESCENDANT.format(_GENERATIONS[self.scenario.process]))


class Pause(Fault):
    """`docker pause`: nothing runs, and all connections stay open."""

    def begin(self) -> None:
        """Do it."""
        self.victim.docker("pause")

    def end(self) -> None:
        """Undo it."""
        with suppress(DockerError):  # it goes on, or is gone
            self.victim.docker("unpause")


class OutOfMemory(Fault):
    """The container gets little more memory than it has, and something in it takes more.

    The kernel kills the largest process, which is the one that trains.
    """

    _since: datetime | None = None

    def begin(self) -> None:
        """Do it, and give the memory back."""
        limit = int(self.victim.shell(_USED_MEMORY)) + _SPARE_MEMORY
        self._limit(limit)
        self._since = datetime.now(UTC)
        self.victim.shell(_EAT_MEMORY)
        self.end()

    def began(self) -> datetime | None:
        """Return when the memory was taken."""
        return self._since

    def end(self) -> None:
        """Undo it."""
        plans = {plan.name: plan.memory for plan in self.victim.stack.clients}
        self._limit(plans[self.victim.service])

    def _limit(self, memory: int) -> None:
        size = f"{memory // 4096 * 4096}b"
        self.victim.docker("update", "--memory", size, "--memory-swap", size)


class Starve(Fault):
    """The victim's computer gets a share of the CPUs that it should have."""

    def begin(self) -> None:
        """Do it."""
        assert self.scenario.share is not None  # noqa: S101 (the scenario is checked)
        self._give(self.scenario.share)

    def end(self) -> None:
        """Undo it."""
        with suppress(DockerError):  # it is gone
            self._give(1.0)

    def _give(self, share: float) -> None:
        victim = self.victim
        (plan,) = (plan for plan in victim.stack.clients if plan.name == victim.service)
        Quotas(victim.stack, victim.containers).correct(plan.computer, share * plan.cpus)
