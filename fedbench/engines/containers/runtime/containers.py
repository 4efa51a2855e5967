"""What fedbench asks of whatever runs containers: the one interface to it.

`daemon` answers with a Docker daemon, `tests/lib/fake_containers.py` out of memory. What
is handed out are plain facts as they were at that moment: ask again to see what has become of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fedbench.host.plan.client_container import ClientContainer
from fedbench.host.plan.plan import HostFacts

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
FILES_LABEL = "com.docker.compose.project.config_files"
JOINED_LABEL = "fedbench.joined"
"""The label of a container that joined a project from outside; its value is the project."""
UNLIMITED = -1
"""The quota of a container without one."""


@dataclass(frozen=True)
class Container:
    """One container as it was when it was looked at.

    `status` is created, running, restarting, exited or dead. `health` is empty where nothing checks
    it. `cpu_quota` is in microseconds of CPU time per `cpu_period`, 0 or less without a limit;
    `memory` in bytes, 0 without a limit. `pid` is that of the first process, 0 without one.
    """

    id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    status: str = "running"
    health: str = ""
    started_at: str = ""
    exit_code: int = 0
    killed_for_memory: bool = False
    restarts: int = 0
    pid: int = 0
    network_mode: str = ""
    ports: tuple[int, ...] = ()
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset: str = ""
    memory: int = 0

    @property
    def service(self) -> str:
        """The name of its service, or of the client that joined."""
        if SERVICE_LABEL in self.labels:
            return self.labels[SERVICE_LABEL]
        return self.name.removeprefix(f"{self.labels.get(JOINED_LABEL)}-joined-")

    @property
    def is_running(self) -> bool:
        """Tell whether it runs right now."""
        return self.status == "running"

    @property
    def cpus(self) -> float | None:
        """Its quota in CPUs; None without one."""
        return self.cpu_quota / self.cpu_period if self.cpu_quota > 0 else None


@dataclass(frozen=True)
class ContainerHost(HostFacts):
    """The machine that runs the containers, with the `version` of what runs them."""

    version: str = ""
    kernel: str = ""
    system: str = ""


@dataclass(frozen=True)
class HelperContainer:
    """A short-lived container: it is root, sees the host's processes, and has no network.

    It has no capability but `capabilities`; `mounts` are folders of the host that it may write to.
    """

    image: str
    command: Sequence[str]
    capabilities: tuple[str, ...] = ()
    security_options: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    host_cgroups: bool = False


@dataclass(frozen=True)
class CommandAnswer:
    """What a command in a container printed, and its exit code."""

    code: int
    output: str
    errors: str = ""


class Containers(Protocol):
    """The containers of one host.

    Each method raises DockerError where what runs the containers does not answer, or refuses.
    """

    @property
    def local(self) -> bool:
        """Tell whether they run on this very machine."""

    def host(self) -> ContainerHost:
        """Return what the machine is that they run on."""

    def image_labels(self, image: str) -> dict[str, str] | None:
        """Return the labels of an image; None where it is not here."""

    def of_project(self, project: str) -> list[Container]:
        """List a compose project's containers, stopped ones included."""

    def joined(self, project: str) -> list[Container]:
        """List the containers that joined a project from outside, stopped ones included."""

    def named(self, name: str) -> Container | None:
        """Return the container of this name, stopped or not; None where there is none."""

    def running(self) -> list[str]:
        """List the names of all containers that run, whoever started them."""

    def look(self, container: Container) -> Container:
        """Look at a container again."""

    def start(self, name: str, container: ClientContainer) -> Container:
        """Start a container that goes on by itself."""

    def start_again(self, container: Container) -> None:
        """Start a container that has ended; nothing happens if it runs."""

    def run_helper(self, helper: HelperContainer) -> CommandAnswer:
        """Run a short-lived container to its end, in about a second."""

    def execute(self, container: Container, command: Sequence[str]) -> CommandAnswer:
        """Run a command in a container to its end."""

    def processes(self, container: Container) -> list[str]:
        """List the command lines of what runs in a container."""

    def set_quota(self, container: Container, period: int, quota: int) -> None:
        """Change a running container's CPU quota, in microseconds; -1 for none."""

    def logs(
        self, container: Container, since: datetime | None = None, until: datetime | None = None
    ) -> list[str]:
        """Return what a container logged, each line after its time; none if it was removed."""

    def follow(self, container: Container, since: datetime) -> Iterator[str]:
        """Yield such lines as they come, until the container ends or cannot be followed."""

    def tail(self, container: Container, lines: int) -> str:
        """Return the last lines that a container logged, without times."""

    def remove(self, container: Container, *, force: bool = False) -> None:
        """Remove a container, a running one by `force`; nothing happens if another did so."""
