"""The federation's containers, and what each of them logs.

Those of the compose project and those that joined from this host. Docker keeps what they wrote, and
says of each line when it came; `loglines` says what is in one.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import docker
from docker.errors import DockerException, NotFound
from docker.models.containers import Container

from fedbench.engines.containers.runtime.stack import JOINED_LABEL, nothing_up
from fedbench.errors import DockerError
from fedbench.host.setup.places import PROJECT
from fedbench.host.watch.log_lines import Choice, Line, parse_level, parse_since, read, require
from fedbench.records.runs import Run

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
MONITORING = ("prometheus", "grafana")
TAIL = 200  # unless a time or a run is asked for
GATHER_SECONDS = 0.3  # lines that come this close to each other are put in order
LOOK_SECONDS = 2.0  # for containers that came or came back


@dataclass(frozen=True)
class Wanted:
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
    ) -> Wanted:
        """From a command's arguments.

        Raises:
            ConfigError: no such level, or not a time.
        """
        moment = parse_since(since, datetime.now(UTC)) if since else None
        whole = tail is None and (since or run)
        last = None if whole else TAIL if tail is None else tail
        return cls(tuple(names), parse_level(level), run, moment, last)

    def choice(self) -> Choice:
        """Which lines of these containers, as the run's records have it now."""
        if self.run is None:
            return Choice(self.level)
        here = self.run.facts().project == PROJECT
        return Choice(self.level, self.run.id, self.run.periods() if here else ())

    def has(self, name: str) -> bool:
        """Whether these are among them; without names, server and clients are."""
        return name in self.names if self.names else name not in MONITORING


@dataclass(frozen=True)
class Sources:
    """The containers of one federation on this host."""

    client: docker.DockerClient
    project: str

    def all(self) -> dict[str, Container]:
        """By name of the service, or of the client that joined; stopped ones included.

        Raises:
            DockerError: Docker does not answer.
        """
        try:
            found = [
                container
                for label in (PROJECT_LABEL, JOINED_LABEL)
                for container in self.client.containers.list(
                    all=True,
                    filters={"label": f"{label}={self.project}"},
                    ignore_removed=True,  # one may go while they are looked at
                )
            ]
        except (DockerException, OSError) as error:  # requests' own are OSErrors
            raise DockerError(f"Docker lists no containers: {error}") from None
        return {_name(container, self.project): container for container in found}

    def chosen(self, names: Collection[str]) -> dict[str, Container]:
        """Those of these names; without any, server and clients.

        Raises:
            FedbenchError: no container is there at all.
            ConfigError: there is none of such a name.
        """
        there = dict(sorted(self.all().items()))
        if not there:
            raise nothing_up()
        for name in names:
            require("client or service", name, there)
        wanted = Wanted(tuple(names))
        return {name: container for name, container in there.items() if wanted.has(name)}


def logged(
    containers: Mapping[str, Container], wanted: Wanted, until: datetime | None = None
) -> Iterator[Line]:
    """Lines that are wanted, of one container after the other.

    Raises:
        DockerError: Docker does not say what one logged.
    """
    choice = wanted.choice()
    for name, container in containers.items():
        yield from filter(choice.takes, _lines(name, container, wanted.since, until))


def live(sources: Sources, wanted: Wanted, since: datetime) -> Iterator[Line]:
    """Lines as they come, from `since` on, for as long as someone asks for them.

    A container that starts again, or joins, is followed from then on.
    """
    incoming: queue.Queue[Line] = queue.Queue()
    streams: dict[str, threading.Thread] = {}
    began: dict[str, datetime] = {}
    while True:
        for name, container in sources.all().items():
            if wanted.has(name) and not (name in streams and streams[name].is_alive()):
                arguments = (name, container, began.get(name, since), incoming.put)
                streams[name] = threading.Thread(target=_stream, args=arguments, daemon=True)
                streams[name].start()
        choice = wanted.choice()
        look_again = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < look_again:
            for line in _gathered(incoming):
                began[line.source] = line.time + timedelta(microseconds=1)
                if choice.takes(line):
                    yield line


def _lines(
    name: str, container: Container, since: datetime | None, until: datetime | None
) -> Iterator[Line]:
    try:
        written = container.logs(
            timestamps=True,
            since=since and since.timestamp(),
            until=until and until.timestamp(),
        )
    except NotFound:  # removed since it was listed
        return
    except (DockerException, OSError) as error:
        raise DockerError(f"the log of {name} cannot be had: {error}") from None
    for raw in written.split(b"\n"):
        if raw:
            yield read(name, raw.decode(errors="replace"))


def _stream(name: str, container: Container, since: datetime, put: Callable[[Line], None]) -> None:
    """Hands on what the container logs until it ends, or is removed."""
    left = b""
    with suppress(DockerException, OSError):
        for chunk in container.logs(
            stream=True, follow=True, timestamps=True, since=since.timestamp()
        ):
            *whole, left = (left + chunk).split(b"\n")
            for raw in whole:
                put(read(name, raw.decode(errors="replace")))


def _gathered(incoming: queue.Queue[Line]) -> list[Line]:
    """What comes within a moment, in the order of time."""
    deadline, lines = time.monotonic() + GATHER_SECONDS, []
    while (left := deadline - time.monotonic()) > 0:
        with suppress(queue.Empty):
            lines.append(incoming.get(timeout=left))
    return sorted(lines, key=lambda line: line.time)


def _name(container: Container, project: str) -> str:
    joined = str(container.name).removeprefix(f"{project}-joined-")
    return str(container.labels.get(SERVICE_LABEL, joined))
