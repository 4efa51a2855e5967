from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from fedbench.client import announce
from fedbench.client.__main__ import Settings
from fedbench.client.announce import Announcer, NameTakenError
from fedbench.host import tls
from fedbench.server.registry import Registry
from fedbench.server.superlink import public_app


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    tls.ensure(folder)
    return folder


async def no_superlink(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("announcements are not for SuperLink")


@contextmanager
def served(registry: Registry, certificates: Path) -> Iterator[str]:
    """Announcements over TLS, as devices meet them; yields the server's address."""
    config = uvicorn.Config(
        public_app(no_superlink, registry),
        lifespan="off",
        ws="none",
        loop="asyncio",
        log_level="warning",
        timeout_graceful_shutdown=1,
        ssl_certfile=certificates / "server/server.pem",
        ssl_keyfile=certificates / "server/server.key",
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"localhost:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def address(registry: Registry, certificates: Path) -> Iterator[str]:
    with served(registry, certificates) as address:
        yield address


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "INTERVAL_SECONDS", 0.02)


def settings(server: str, instance: str = "i1") -> Settings:
    return Settings("laptop-1", "laptop", server, False, 9101, instance)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_client_is_listed_while_it_runs(
    registry: Registry, address: str, certificates: Path
) -> None:
    with Announcer(settings(address), certificates / "ca.pem").running():
        assert registry.targets() == [
            {
                "targets": ["127.0.0.1:9101"],
                "labels": {"client": "laptop-1", "device": "laptop"},
            }
        ]
    assert registry.targets() == []


def test_a_client_announces_itself_again_and_again(
    registry: Registry, address: str, certificates: Path
) -> None:
    with Announcer(settings(address), certificates / "ca.pem").running():
        for _ in range(3):  # as if the server had started anew
            registry.leave("laptop-1", "i1")
            until(registry.targets)


def test_the_goodbye_is_the_last_word(
    registry: Registry, address: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announcer = Announcer(settings(address), certificates / "ca.pem")
    with announcer.running():
        announce_now, under_way = announcer._announce, threading.Event()

        def slowly() -> None:
            under_way.set()
            time.sleep(0.1)
            announce_now()

        monkeypatch.setattr(announcer, "_announce", slowly)
        assert under_way.wait(20)
    time.sleep(0.2)

    assert registry.targets() == []


def test_a_name_that_is_taken_ends_it(registry: Registry, address: str, certificates: Path) -> None:
    with (
        Announcer(settings(address), certificates / "ca.pem").running(),
        pytest.raises(NameTakenError, match="a client named laptop-1 is already connected"),
        Announcer(settings(address, "i2"), certificates / "ca.pem").running(),
    ):
        raise AssertionError("two clients of one name")


def test_a_server_of_another_federation_is_not_trusted(address: str, tmp_path: Path) -> None:
    tls.ensure(tmp_path)

    with (
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
        Announcer(settings(address), tmp_path / "ca.pem").running(),
    ):
        raise AssertionError("the wrong certificate was accepted")


def test_a_server_that_goes_away_ends_nothing(
    registry: Registry, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with served(registry, certificates) as address:
        running = Announcer(settings(address), certificates / "ca.pem").running()
        running.__enter__()
    until(lambda: "could not announce" in caplog.text)

    running.__exit__(None, None, None)

    assert "announce" not in {thread.name for thread in threading.enumerate()}
