"""Containers in memory, with a state, logs and quotas: a test decides what becomes of them.

`engines/containers/runtime/test_containers.py` holds it and Docker to the same assertions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fedbench.engines.containers.runtime.containers import (
    JOINED_LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
    CommandAnswer,
    Container,
    ContainerHost,
    HelperContainer,
)
from fedbench.errors import DockerError
from fedbench.host.plan.client_container import ClientContainer
from fedbench.host.setup.places import PROJECT

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOST = ContainerHost(2, 8 * 2**30, 0, "cgroupfs", "26.1.5", "6.1.0-13", "Debian GNU/Linux 12")


@dataclass
class FakeContainers:
    """The containers of one host. `calls` are (operation, service), in their order.

    A name of an operation in `refusals` makes that operation fail with this text.
    """

    machine: ContainerHost = HOST
    local: bool = False
    images: dict[str, dict[str, str]] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    answers: dict[str, CommandAnswer] = field(default_factory=dict)
    """By a word of the command: what a command in a container prints."""
    helper: Callable[[HelperContainer], CommandAnswer] = lambda _: CommandAnswer(0, "null")
    on_logs: Callable[[], None] = lambda: None
    """Called after each reading of a log, before it is handed out."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    helpers: list[HelperContainer] = field(default_factory=list)
    started: dict[str, ClientContainer] = field(default_factory=dict)
    quotas: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """The quotas that each service was given, the last one last."""

    def __post_init__(self) -> None:
        self._containers: dict[str, Container] = {}
        self._lines: defaultdict[str, list[tuple[datetime, str]]] = defaultdict(list)
        self._processes: dict[str, list[str]] = {}
        self._numbers = iter(range(1, 10_000))

    # -- what a test does

    def add(self, service: str, *, project: str = PROJECT, **state: Any) -> Container:
        """Let there be a healthy container of a service, as compose starts it."""
        labels = {PROJECT_LABEL: project, SERVICE_LABEL: service}
        return self._add(f"{project}-{service}-1", labels, state)

    def add_joined(self, client: str, *, project: str = PROJECT, **state: Any) -> Container:
        """Let there be a container that joined from outside."""
        return self._add(f"{project}-joined-{client}", {JOINED_LABEL: project}, state)

    def change(self, service: str, **state: Any) -> Container:
        """Let something become of a container."""
        container = replace(self.get(service), **state)
        self._containers[container.id] = container
        return container

    def restart(self, service: str) -> Container:
        """Let a container start again, as after a crash: with another first process."""
        number = next(self._numbers)
        now = self.get(service)
        return self.change(
            service, started_at=f"start {number}", pid=number, restarts=now.restarts + 1
        )

    def drop(self, *services: str) -> None:
        """Let containers go, as if somebody else removed them: all where none is named."""
        for container in list(self._containers.values()):
            if not services or container.service in services:
                del self._containers[container.id]

    def get(self, service: str) -> Container:
        """Return the container of a service, or of a client that joined."""
        return next(each for each in self._containers.values() if each.service == service)

    def run(self, service: str, *processes: str) -> None:
        """Let these processes run in a container."""
        self._processes[self.get(service).id] = list(processes)

    def say(self, service: str, *lines: tuple[float, str]) -> None:
        """Let a container log lines, each so many seconds after `START`."""
        log = self._lines[self.get(service).id]
        log += [(START + timedelta(seconds=seconds), text) for seconds, text in lines]

    def forget(self, service: str) -> None:
        """Let a container's log be empty."""
        self._lines.pop(self.get(service).id, None)

    # -- what fedbench asks (`Containers`)

    def host(self) -> ContainerHost:
        self._allow("host", "the host cannot be looked at")
        return self.machine

    def image_labels(self, image: str) -> dict[str, str] | None:
        return self.images.get(image)

    def of_project(self, project: str) -> list[Container]:
        return self._labelled(PROJECT_LABEL, project)

    def joined(self, project: str) -> list[Container]:
        return self._labelled(JOINED_LABEL, project)

    def named(self, name: str) -> Container | None:
        return next((each for each in self._containers.values() if each.name == name), None)

    def running(self) -> list[str]:
        return [each.name for each in self._containers.values() if each.is_running]

    def look(self, container: Container) -> Container:
        return self._known(container, f"{container.name}: cannot be looked at")

    def start(self, name: str, container: ClientContainer) -> Container:
        self._allow("start", f"container {name} does not start")
        if self.named(name):
            raise DockerError(f"container {name} does not start: the name is in use")
        self.started[name] = container
        limits = {
            "cpu_period": container.cpu_period or 0,
            "cpu_quota": container.cpu_quota or 0,
            "memory": container.memory or 0,
            "ports": tuple(sorted(container.ports.values())),
        }
        return self._add(name, dict(container.labels), {"health": "", **limits})

    def start_again(self, container: Container) -> None:
        what = f"{container.name}: does not start again"
        now = self._known(container, what)
        self._call("start_again", now, what)
        if not now.is_running:
            number = next(self._numbers)
            state = {"status": "running", "exit_code": 0, "started_at": f"start {number}"}
            self.change(now.service, pid=number, **state)

    def run_helper(self, helper: HelperContainer) -> CommandAnswer:
        self._allow("run_helper", f"{helper.image}: the helper cannot be run")
        self.helpers.append(helper)
        return self.helper(helper)

    def execute(self, container: Container, command: Sequence[str]) -> CommandAnswer:
        what = f"{container.name}: `{command[0]}` cannot be run"
        self._call("execute", self._running(container, what), what)
        line = " ".join(command)
        return next((a for word, a in self.answers.items() if word in line), CommandAnswer(0, ""))

    def processes(self, container: Container) -> list[str]:
        what = f"{container.name}: its processes cannot be listed"
        return self._processes.get(self._running(container, what).id, [])

    def set_quota(self, container: Container, period: int, quota: int) -> None:
        what = f"{container.name}: its CPU quota cannot be changed"
        now = self._known(container, what)
        self._call("set_quota", now, what)
        self._containers[now.id] = replace(now, cpu_period=period, cpu_quota=quota)
        self.quotas[now.service].append(quota)

    def logs(
        self, container: Container, since: datetime | None = None, until: datetime | None = None
    ) -> list[str]:
        self._call("logs", container, f"the log of {container.service} cannot be had")
        written = [
            f"{time:%Y-%m-%dT%H:%M:%S.%f}000Z {text}"
            for time, text in self._lines.get(container.id, ())
            if (since is None or time >= since) and (until is None or time <= until)
        ]
        self.on_logs()
        return written if container.id in self._containers else []

    def follow(self, container: Container, since: datetime) -> Iterator[str]:
        """Yield what is there and end, as where the container ends; it is read no second time."""
        written = self.logs(container, since)
        self._lines.pop(container.id, None)
        yield from written

    def tail(self, container: Container, lines: int) -> str:
        self._call("tail", container, f"the log of {container.service} cannot be had")
        return "\n".join(text for _, text in self._lines.get(container.id, ())[-lines:])

    def remove(self, container: Container, *, force: bool = False) -> None:
        what = f"{container.name} cannot be removed"
        if container.id not in self._containers:
            return
        if self._containers[container.id].is_running and not force:
            raise DockerError(f"{what}: it is running")
        self._call("remove", container, what)
        del self._containers[container.id]

    # -- how

    def _add(self, name: str, labels: dict[str, str], state: dict[str, Any]) -> Container:
        number = next(self._numbers)
        usual = {
            "id": f"id-{number}",
            "image": "sha256:abc",
            "health": "healthy",
            "started_at": f"start {number}",
            "pid": number,
        }
        container = Container(**{"name": name, "labels": labels, **usual, **state})
        if not container.is_running:
            container = replace(container, pid=0)
        self._containers[container.id] = container
        return container

    def _labelled(self, label: str, value: str) -> list[Container]:
        self._allow("list", "Docker lists no containers")
        return [each for each in self._containers.values() if each.labels.get(label) == value]

    def _known(self, container: Container, what: str) -> Container:
        if container.id not in self._containers:
            raise DockerError(f"{what}: No such container: {container.id}")
        return self._containers[container.id]

    def _running(self, container: Container, what: str) -> Container:
        now = self._known(container, what)
        if not now.is_running:
            raise DockerError(f"{what}: container {now.id} is not running")
        return now

    def _call(self, operation: str, container: Container, what: str) -> None:
        self._allow(operation, what, container.service)
        self.calls.append((operation, container.service))

    def _allow(self, operation: str, what: str, service: str = "") -> None:
        for key in (operation, f"{operation} {service}"):
            if key in self.refusals:
                raise DockerError(f"{what}: {self.refusals[key]}")
