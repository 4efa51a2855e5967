"""The federation's containers on this host, and what each of them logs.

They are those of the compose project and those that joined. Docker keeps what they wrote, with the
time of each line; `log_lines` says what is in a line.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fedbench.engines.containers.runtime.containers import Container, Containers
from fedbench.engines.containers.runtime.stack import nothing_up
from fedbench.host.setup.places import PROJECT
from fedbench.host.watch.log_lines import Choice, Line, parse_level, parse_since, read, require
from fedbench.records.runs import Run

MONITORING = ("prometheus", "grafana")
TAIL = 200  # unless a time or a run is asked for
GATHER_SECONDS = 0.3  # lines that come this close to each other are put in order
LOOK_SECONDS = 2.0  # for containers that came or came back


@dataclass(frozen=True)
class LogFilter:
    """Whose lines, of which kind, since when; the last `tail` of them, or all."""

    names: tuple[str, ...] = ()
    level: str = "info"
    run: Run | None = None
    since: datetime | None = None
    tail: int | None = None

    @classmethod
    def parse(
        cls,
        names: Iterable[str],
        *,
        since: str | None = None,
        run: Run | None = None,
        level: str = "info",
        tail: int | None = None,
    ) -> LogFilter:
        """Make it of a command's arguments.

        Raises:
            ConfigError: no such level, or not a time.
        """
        moment = parse_since(since, datetime.now(UTC)) if since else None
        whole = tail is None and (since or run)
        last = None if whole else TAIL if tail is None else tail
        return cls(tuple(names), parse_level(level), run, moment, last)

    def choice(self) -> Choice:
        """Choose lines of these containers, as the run's records have it now."""
        if self.run is None:
            return Choice(self.level)
        here = self.run.facts().project == PROJECT
        return Choice(self.level, self.run.id, self.run.periods() if here else ())

    def has(self, name: str) -> bool:
        """Tell whether this container is chosen; without names, server and clients are."""
        return name in self.names if self.names else name not in MONITORING


@dataclass(frozen=True)
class Sources:
    """The containers of one federation on this host."""

    containers: Containers
    project: str

    def all(self) -> dict[str, Container]:
        """Return them by name of the service or of the client that joined, stopped ones too.

        Raises:
            DockerError: Docker does not answer.
        """
        project = self.containers.of_project(self.project)
        listed = [*project, *self.containers.joined(self.project)]
        return {container.service: container for container in listed}

    def chosen(self, names: Collection[str]) -> dict[str, Container]:
        """Return those of these names; without any, server and clients.

        Raises:
            FedbenchError: no container is there at all.
            ConfigError: there is none of such a name.
        """
        there = dict(sorted(self.all().items()))
        if not there:
            raise nothing_up()
        for name in names:
            require("client or service", name, there)
        chosen = LogFilter(tuple(names))
        return {name: container for name, container in there.items() if chosen.has(name)}

    def logged(
        self,
        chosen: Mapping[str, Container],
        wanted: LogFilter,
        until: datetime | None = None,
    ) -> Iterator[Line]:
        """Yield the lines that are wanted, of one container after the other.

        Raises:
            DockerError: Docker does not say what one logged.
        """
        choice = wanted.choice()
        for name, container in chosen.items():
            for raw in self.containers.logs(container, wanted.since, until):
                line = read(name, raw)
                if choice.takes(line):
                    yield line


def live(sources: Sources, wanted: LogFilter, since: datetime) -> Iterator[Line]:
    """Yield lines as they come, from `since` on, for as long as someone asks for them.

    A container that starts again, or joins, is followed from then on.
    """
    incoming: queue.Queue[Line] = queue.Queue()
    streams: dict[str, threading.Thread] = {}
    began: dict[str, datetime] = {}
    while True:
        for name, container in sources.all().items():
            if wanted.has(name) and not (name in streams and streams[name].is_alive()):
                lines = sources.containers.follow(container, began.get(name, since))
                arguments = (name, lines, incoming.put)
                streams[name] = threading.Thread(target=_stream, args=arguments, daemon=True)
                streams[name].start()
        choice = wanted.choice()
        look_again = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < look_again:
            for line in _gathered(incoming):
                began[line.source] = line.time + timedelta(microseconds=1)
                if choice.takes(line):
                    yield line


def _stream(name: str, lines: Iterable[str], put: Callable[[Line], None]) -> None:
    """Hand on what a container logs until it ends, or is removed."""
    for raw in lines:
        put(read(name, raw))


def _gathered(incoming: queue.Queue[Line]) -> list[Line]:
    """Return what comes within a moment, in the order of time."""
    deadline, lines = time.monotonic() + GATHER_SECONDS, []
    while (left := deadline - time.monotonic()) > 0:
        with suppress(queue.Empty):
            lines.append(incoming.get(timeout=left))
    return sorted(lines, key=lambda line: line.time)
