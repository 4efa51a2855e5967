"""What fedbench asks of containers, held to the fake and to Docker alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol

import docker
import pytest
from docker.errors import APIError, DockerException, NotFound
from fake_containers import START, FakeContainers
from requests import ReadTimeout

from fedbench.engines.containers.runtime import helper
from fedbench.engines.containers.runtime.containers import (
    JOINED_LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
    UNLIMITED,
    CommandAnswer,
    Container,
    Containers,
    HelperContainer,
)
from fedbench.engines.containers.runtime.daemon import DockerContainers
from fedbench.errors import DockerError

PROJECT = "fedbench-test-contract"
PERIOD = 100_000
LINES = ("first", "caf\N{LATIN SMALL LETTER E WITH ACUTE}")
SCRIPT = f"print({LINES[0]!r}); print({LINES[1]!r}, flush=True); import time; time.sleep(600)"


class World(Protocol):
    """Containers, and somebody who starts some of a service that logs `LINES`, and stops them."""

    containers: Containers

    def up(self, service: str) -> None: ...

    def join(self, client: str) -> None: ...

    def stop(self, name: str) -> None: ...


class FakeWorld:
    """In memory."""

    def __init__(self) -> None:
        self.containers = self.fake = FakeContainers(
            images={"fedbench:cpu": {"fedbench.content": "x"}}
        )
        self.fake.answers["hello"] = CommandAnswer(0, "hello\n")
        self.fake.helper = lambda _: CommandAnswer(3, "answer", "a warning")

    def up(self, service: str) -> None:
        self.fake.add(service, project=PROJECT)
        self._start(service)

    def join(self, client: str) -> None:
        self.fake.add_joined(client, project=PROJECT)
        self._start(client)

    def _start(self, service: str) -> None:
        self.fake.say(service, *enumerate(LINES))
        self.fake.run(service, f"python -c {SCRIPT}")

    def stop(self, name: str) -> None:
        container = self.containers.named(name)
        assert container is not None
        self.fake.change(container.service, status="exited", pid=0, exit_code=137)


class DockerWorld:
    """In Docker, from the image of server and clients."""

    def __init__(self, client: docker.DockerClient, image: str) -> None:
        self.containers = DockerContainers(client)
        self._client = client
        self._image = image
        self._names: list[str] = []

    def up(self, service: str) -> None:
        labels = {PROJECT_LABEL: PROJECT, SERVICE_LABEL: service}
        self._start(f"{PROJECT}-{service}-1", labels)

    def join(self, client: str) -> None:
        self._start(f"{PROJECT}-joined-{client}", {JOINED_LABEL: PROJECT})

    def _start(self, name: str, labels: dict[str, str]) -> None:
        self._names.append(name)
        container = self._client.containers.run(
            self._image, ["python", "-c", SCRIPT], name=name, labels=labels, init=True,
            network_mode="none", detach=True,
        )  # fmt: skip
        lines = iter(container.logs(stream=True))
        while LINES[1].encode() not in next(lines):
            pass

    def stop(self, name: str) -> None:
        self._client.containers.get(name).kill()
        self._client.containers.get(name).wait()

    def clear(self) -> None:
        for name in self._names:
            with suppress(NotFound):
                self._client.containers.get(name).remove(force=True)


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    client = request.getfixturevalue("docker_client")
    real = DockerWorld(client, request.getfixturevalue("helper_image"))
    try:
        yield real
    finally:
        real.clear()


def only(listed: list[Container]) -> Container:
    (container,) = listed
    return container


def test_containers_are_found_by_their_project_and_by_name(world: World) -> None:
    world.up("server")
    world.join("visitor")
    server = only(world.containers.of_project(PROJECT))
    visitor = only(world.containers.joined(PROJECT))
    assert (server.service, visitor.service) == ("server", "visitor")
    assert server.name == f"{PROJECT}-server-1"
    assert world.containers.named(server.name) == server == world.containers.look(server)
    assert world.containers.named(f"{PROJECT}-server") is None
    assert world.containers.of_project("fedbench-test-another") == []
    assert {server.name, visitor.name} <= set(world.containers.running())


def test_one_that_runs_and_one_that_ended_are_told_apart(world: World) -> None:
    world.up("server")
    before = only(world.containers.of_project(PROJECT))
    assert (before.status, before.is_running, before.exit_code) == ("running", True, 0)
    assert before.pid > 0
    assert before.started_at
    world.stop(before.name)
    after = only(world.containers.of_project(PROJECT))
    assert (after.id, after.status, after.is_running) == (before.id, "exited", False)
    assert (after.pid, after.exit_code, after.killed_for_memory) == (0, 137, False)
    assert before.name not in world.containers.running()


def test_one_that_ended_is_started_again(world: World) -> None:
    world.up("server")
    before = only(world.containers.of_project(PROJECT))
    world.stop(before.name)
    world.containers.start_again(before)
    after = only(world.containers.of_project(PROJECT))
    assert (after.id, after.is_running, after.pid > 0) == (before.id, True, True)
    assert after.started_at != before.started_at
    world.containers.start_again(after)
    assert world.containers.look(after) == after


def test_a_quota_is_changed_and_taken_off(world: World) -> None:
    world.up("laptop")
    container = only(world.containers.of_project(PROJECT))
    assert container.cpus is None
    for quota, cpus in ((50_000, 0.5), (20_000, 0.2), (UNLIMITED, None)):
        world.containers.set_quota(container, PERIOD, quota)
        assert world.containers.look(container).cpus == cpus


def test_what_is_logged_is_read_from_a_moment_on(world: World) -> None:
    world.up("laptop")
    container = only(world.containers.of_project(PROJECT))
    lines = world.containers.logs(container)
    assert [line.split(" ", 1)[1] for line in lines] == list(LINES)
    times = [datetime.fromisoformat(line.split(" ", 1)[0][:26] + "+00:00") for line in lines]
    assert world.containers.logs(container, since=times[1] + timedelta(seconds=10)) == []
    assert world.containers.logs(container, until=times[0] - timedelta(seconds=10)) == []
    assert world.containers.tail(container, lines=1) == LINES[1]


def test_a_log_is_followed_to_the_containers_end(world: World) -> None:
    world.up("laptop")
    container = only(world.containers.of_project(PROJECT))
    world.stop(container.name)
    lines = list(world.containers.follow(container, START - timedelta(days=1)))
    assert [line.split(" ", 1)[1] for line in lines] == list(LINES)


def test_a_command_runs_in_a_container(world: World) -> None:
    world.up("server")
    server = only(world.containers.of_project(PROJECT))
    answer = world.containers.execute(server, ["echo", "hello"])
    assert (answer.code, answer.output) == (0, "hello\n")
    assert any("time.sleep" in process for process in world.containers.processes(server))


def test_in_what_has_ended_nothing_runs(world: World) -> None:
    world.up("server")
    server = only(world.containers.of_project(PROJECT))
    world.stop(server.name)
    refused: list[Callable[[], object]] = [
        lambda: world.containers.execute(server, ["echo", "hello"]),
        lambda: world.containers.processes(server),
    ]
    for ask in refused:
        with pytest.raises(DockerError, match=rf"^{server.name}: .*not running"):
            ask()


def test_what_is_gone_is_an_error_but_for_its_log_and_its_removal(world: World) -> None:
    world.up("server")
    server = only(world.containers.of_project(PROJECT))
    with pytest.raises(DockerError, match="cannot be removed"):
        world.containers.remove(server)
    world.containers.remove(server, force=True)
    assert world.containers.of_project(PROJECT) == []
    world.containers.remove(server, force=True)
    assert world.containers.logs(server) == []
    for ask in (
        lambda: world.containers.look(server),
        lambda: world.containers.set_quota(server, PERIOD, 50_000),
    ):
        with pytest.raises(DockerError, match=rf"^{server.name}: .*No such container"):
            ask()


def test_a_helper_says_what_it_did(world: World) -> None:
    command = ["sh", "-c", "printf answer; printf 'a warning' >&2; exit 3"]
    answer = world.containers.run_helper(HelperContainer("fedbench:cpu", command))
    assert answer == CommandAnswer(3, "answer", "a warning")


def test_the_host_and_its_images_are_told(world: World) -> None:
    host = world.containers.host()
    assert host.cpus >= 1
    assert host.memory > 2**28
    assert all((host.cgroup_driver, host.version, host.kernel, host.system))
    assert "fedbench.content" in (world.containers.image_labels("fedbench:cpu") or {})
    assert world.containers.image_labels("fedbench-no-such:image") is None


# -- what Docker does, that no real daemon does on demand


class Api:
    """The side of the library that talks to a daemon, answering what a test wants."""

    base_url = "http+docker://localhost"

    def __init__(self, packets: tuple[bytes, ...] = (), failure: Exception | None = None) -> None:
        self.packets = packets
        self.failure = failure

    def containers(self, **_: object) -> list[dict[str, str]]:
        return [{"Id": "gone"}]

    def inspect_container(self, container: str) -> dict[str, str]:
        if container == "gone":
            raise NotFound(f"no such container: {container}")
        return {"Id": container}

    def logs(self, *_: object, **__: object) -> object:
        if self.failure:
            raise self.failure
        return iter(self.packets)

    def info(self) -> None:
        raise self.failure or AssertionError


def talking(api: Api) -> DockerContainers:
    client = docker.DockerClient("unix:///nowhere", version="1.43")
    client.api.close()
    client.api = api
    return DockerContainers(client)


LAPTOP = Container("id", f"{PROJECT}-laptop-1", {SERVICE_LABEL: "laptop"})


def test_a_container_that_goes_while_it_is_looked_at_is_none() -> None:
    assert talking(Api()).of_project(PROJECT) == []


def test_lines_are_whole_wherever_a_packet_ends() -> None:
    packets = (b"2026 fir", b"st\n2026 sec", b"ond\n2026 caf\xe9\n", b"2026 torn")
    followed = talking(Api(packets)).follow(LAPTOP, datetime.now(UTC))
    assert list(followed) == ["2026 first", "2026 second", "2026 caf\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(
    "failure",
    [ReadTimeout("too slow"), DockerException("too slow"), APIError("500", None, "too slow")],
)
def test_whatever_docker_says_is_one_kind_of_error(failure: Exception) -> None:
    containers = talking(Api(failure=failure))
    with pytest.raises(DockerError) as caught:
        containers.logs(LAPTOP)
    assert caught.value.message == "the log of laptop cannot be had: too slow"
    with pytest.raises(DockerError, match="too slow"):
        containers.host()
    assert list(containers.follow(LAPTOP, datetime.now(UTC))) == []


def test_only_a_socket_of_this_machine_is_local() -> None:
    assert talking(Api()).local
    remote = docker.DockerClient("tcp://10.0.0.1:2375", version="1.43")
    assert not DockerContainers(remote).local
    remote.close()


def test_the_orders_of_the_helper_are_json() -> None:
    """Else a fake helper could be told anything."""
    fake = FakeContainers()
    fake.helper = lambda order: CommandAnswer(0, json.dumps({"got": order.command[-1]}))
    assert helper.run(fake, "i", {"probe": []}) == {"got": '{"probe": []}'}
    fake.helper = lambda _: CommandAnswer(1, json.dumps({"error": "the kernel refuses"}))
    with pytest.raises(DockerError, match="the kernel refuses"):
        helper.run(fake, "i", {})
    fake.helper = lambda _: CommandAnswer(137, "", "Traceback\nKilled")
    with pytest.raises(DockerError, match="the helper ended with code 137:\nTraceback\nKilled"):
        helper.run(fake, "i", {})
