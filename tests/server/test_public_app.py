"""Real connections over TLS, closed as a kernel closes those of a process that was killed."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from devices import served

from fedbench.server.registry import HUNG_UP, Registry
from fedbench.wire import CLIENTS_PATH, Announcement

NODE = 77
ANNOUNCEMENT = Announcement(
    client="pc", device="legacy-pc", instance="i1", metrics_port=9101, node_id=NODE, wait=60
)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def lost() -> list[int]:
    return []


@pytest.fixture
def registry(lost: list[int]) -> Registry:
    return Registry(lost.append)


def announce(
    address: str, certificates: Path, round_trip: float = 0.0
) -> http.client.HTTPSConnection:
    """Announce a client, and do not wait for the answer."""
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    connection = http.client.HTTPSConnection(address, context=context)
    said = ANNOUNCEMENT.model_copy(update={"round_trip": round_trip})
    connection.request("POST", CLIENTS_PATH, said.model_dump_json())
    return connection


def test_a_client_whose_connection_closes_is_dead(
    registry: Registry, lost: list[int], certificates: Path
) -> None:
    with served(registry, certificates, grace=0.05) as address:
        connection = announce(address, certificates)
        until(registry.targets)
        assert lost == []
        connection.close()
        until(lambda: lost == [NODE])
    assert registry.reason(NODE, "pc") == HUNG_UP


def test_a_client_far_away_has_the_time_to_connect_again(
    registry: Registry, lost: list[int], certificates: Path
) -> None:
    with served(registry, certificates, grace=0.05) as address:
        connection = announce(address, certificates, round_trip=0.2)
        until(registry.targets)
        connection.close()
        began = time.monotonic()
        until(lambda: lost == [NODE])
    assert time.monotonic() - began >= 3 * 0.2 - 0.05


def test_a_client_that_connects_again_is_alive(
    registry: Registry, lost: list[int], certificates: Path
) -> None:
    with served(registry, certificates, grace=0.5) as address:
        connection = announce(address, certificates)
        until(registry.targets)
        connection.close()
        again = announce(address, certificates)
        time.sleep(1)
        assert (lost, len(registry.targets())) == ([], 1)
        again.close()


def test_a_goodbye_frees_the_answer(
    registry: Registry, lost: list[int], certificates: Path
) -> None:
    with served(registry, certificates, grace=0.05) as address:
        connection = announce(address, certificates)
        until(registry.targets)
        context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        other = http.client.HTTPSConnection(address, context=context)
        other.request("DELETE", f"{CLIENTS_PATH}/pc/i1")
        assert other.getresponse().status == 200
        assert connection.getresponse().status == 200  # long before its 60 s
        other.close()
        connection.close()
        time.sleep(0.2)
    assert lost == []
