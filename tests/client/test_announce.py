from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from clock import Clock
from devices import served

from fedbench.client import announce
from fedbench.client.announce import Announcer
from fedbench.client.settings import Settings
from fedbench.engines.containers.runtime import certificates as tls
from fedbench.records.pacing import Pacing
from fedbench.server.registry import Registry
from fedbench.wire import Announcement, Ending, NameTakenError

NODE = 2**64 - 1


def _nobody(node_id: int) -> None:
    raise AssertionError(f"{node_id} was signed off")


@pytest.fixture
def registry() -> Registry:
    return Registry(_nobody)


@pytest.fixture
def address(registry: Registry, certificates: Path) -> Iterator[str]:
    with served(registry, certificates) as address:
        yield address


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "INTERVAL_SECONDS", 0.02)


def announcer(
    server: str,
    folder: Path,
    instance: str = "i1",
    wait: Callable[[float], bool] = lambda _: True,
    clock: Callable[[], float] = time.monotonic,
    connected: Callable[[bool], None] = lambda _: None,
    pacing: Callable[[], Pacing | None] = lambda: None,
    gone: Callable[[], object] = lambda: None,
) -> Announcer:
    certificate = folder / "ca.pem"
    settings = Settings("laptop-1", "laptop", server, instance=instance, certificate=certificate)
    return Announcer(settings, NODE, wait, connected, clock, pacing, gone)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_client_is_listed_while_it_runs(
    registry: Registry, address: str, certificates: Path
) -> None:
    with announcer(address, certificates).running():
        assert registry.targets() == [
            {
                "targets": ["127.0.0.1:9101"],
                "labels": {"client": "laptop-1", "device": "laptop"},
            }
        ]
    assert registry.targets() == []


def test_the_server_knows_the_node_of_a_client(certificates: Path) -> None:
    lost: list[int] = []
    registry = Registry(lost.append)
    with (
        served(registry, certificates) as address,
        announcer(address, certificates).running(),
    ):
        registry.end(
            "laptop-1", "i1", Ending(exit_code=-9, killed_for_memory=False, memory_limit=None)
        )

    assert lost == [NODE]


def test_each_announcement_says_how_the_client_keeps_its_pace(
    registry: Registry, address: str, certificates: Path
) -> None:
    seconds = iter(range(1000))

    def pacing() -> Pacing:
        wall = float(next(seconds))
        return Pacing(wall=wall, training=wall, cpu=wall / 2, late=0.5)

    with announcer(address, certificates, pacing=pacing).running():
        until(lambda: registry.pacing()["laptop-1"].wall >= 3)
        said = registry.pacing()["laptop-1"]
    assert (said.training, said.cpu, said.late) == (said.wall, said.wall / 2, 0.5)
    assert registry.pacing() == {}


def test_each_announcement_says_how_long_the_one_before_was_on_its_way(
    registry: Registry, address: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Announcement] = []
    heard = registry.announce

    def hear_late(announcement: Announcement, peer: str) -> None:
        time.sleep(0.1)
        said.append(announcement)
        heard(announcement, peer)

    monkeypatch.setattr(registry, "announce", hear_late)
    with announcer(address, certificates).running():
        until(lambda: len(said) >= 3)

    assert said[0].round_trip == announce.UNKNOWN_SECONDS
    assert all(0.1 <= each.round_trip < announce.UNKNOWN_SECONDS for each in said[1:])


def test_a_goodbye_waits_for_no_answer_and_is_the_last_word(
    registry: Registry,
    address: str,
    certificates: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    monkeypatch.setattr(announce, "INTERVAL_SECONDS", 30.0)
    running = announcer(address, certificates)
    with running.running():
        until(lambda: any(thread.name == "announce" for thread in threading.enumerate()))
        time.sleep(0.1)  # its answer is held back by now
        start = time.monotonic()
    assert time.monotonic() - start < 15
    assert registry.targets() == []
    assert caplog.text == ""
    with pytest.raises(httpx.HTTPStatusError, match="410 Gone"):
        announcer(address, certificates).running().__enter__()


def advancing(clock: Clock, waits: list[float]) -> Callable[[float], bool]:
    """A wait that takes no time but the clock's."""

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        clock.now += seconds
        return False

    return wait


def test_a_name_that_stays_taken_ends_it(
    address: str, certificates: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    clock, waits = Clock(), list[float]()
    second = announcer(address, certificates, "i2", advancing(clock, waits), clock)
    with announcer(address, certificates).running():
        monkeypatch.setattr(announce, "INTERVAL_SECONDS", 5.0)
        with (
            pytest.raises(NameTakenError, match="a client named laptop-1 is already connected"),
            second.running(),
        ):
            raise AssertionError("two clients of one name")
        monkeypatch.undo()
    assert waits == [5.0] * 8
    assert [r.message for r in caplog.records if "waiting" in r.message] == [
        "a client named laptop-1 is already connected: waiting 40 s for its end"
    ]


def test_the_name_of_a_client_that_was_killed_is_had_when_the_server_misses_it(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "INTERVAL_SECONDS", 5.0)
    clock, waits = Clock(), list[float]()
    registry = Registry(lambda _: None, clock)
    registry.announce(
        Announcement(client="laptop-1", device="laptop", instance="killed", metrics_port=9101),
        "127.0.0.1",
    )
    with (
        served(registry, certificates) as address,
        announcer(address, certificates, "i2", advancing(clock, waits), clock).running(),
    ):
        assert [target["labels"] for target in registry.targets()] == [
            {"client": "laptop-1", "device": "laptop"}
        ]
    assert waits == [5.0] * 3  # beyond the 12 s that the server waits


def test_a_client_that_is_to_end_waits_for_no_name(
    registry: Registry, address: str, certificates: Path
) -> None:
    with (
        announcer(address, certificates).running(),
        pytest.raises(NameTakenError),
        announcer(address, certificates, "i2", lambda _: True).running(),
    ):
        raise AssertionError("two clients of one name")


def test_a_server_of_another_federation_is_not_trusted(address: str, tmp_path: Path) -> None:
    tls.ensure(tmp_path)

    with (
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
        announcer(address, tmp_path).running(),
    ):
        raise AssertionError("the wrong certificate was accepted")


def test_a_server_that_is_late_is_asked_again(
    registry: Registry, address: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, late = httpx.Client.post, [httpx.ReadTimeout("late"), httpx.ConnectTimeout("late")]

    def post_late(client: httpx.Client, *args: Any, **options: Any) -> httpx.Response:
        if late:
            raise late.pop()
        return post(client, *args, **options)

    monkeypatch.setattr(httpx.Client, "post", post_late)
    with announcer(address, certificates).running():
        assert registry.targets()


def test_a_server_that_stays_late_ends_it(
    address: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def post_late(*_: Any, **__: Any) -> httpx.Response:
        clock.now += 15
        raise httpx.ReadTimeout("late")

    monkeypatch.setattr(httpx.Client, "post", post_late)
    running = announcer(address, certificates, clock=clock).running()
    with pytest.raises(httpx.ReadTimeout), running:
        raise AssertionError("the server was not there")
    assert clock.now >= announce.TAKEN_SECONDS


def test_a_server_that_goes_away_ends_nothing(
    registry: Registry, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with served(registry, certificates) as address:
        running = announcer(address, certificates).running()
        running.__enter__()
    until(lambda: "could not announce" in caplog.text)

    running.__exit__(None, None, None)

    assert "announce" not in {thread.name for thread in threading.enumerate()}


def test_it_says_whether_the_server_answers(registry: Registry, certificates: Path) -> None:
    told: list[bool] = []
    with served(registry, certificates) as address:
        running = announcer(address, certificates, connected=told.append).running()
        running.__enter__()
        assert told[0], "from the first on"
    until(lambda: not told[-1])
    with served(registry, certificates, address):
        until(lambda: told[-1])
        running.__exit__(None, None, None)


def test_a_client_that_the_server_gave_up_is_told_once(
    registry: Registry, address: str, certificates: Path
) -> None:
    gone: list[bool] = []
    with announcer(address, certificates, gone=lambda: gone.append(True)).running():
        registry.leave("laptop-1", "i1")
        until(lambda: gone)
        time.sleep(0.2)
    assert gone == [True]
