from __future__ import annotations

import socket
from collections.abc import Iterator

import psutil
import pytest

from fedbench.config import Ports
from fedbench.engines.containers.runtime.ports import require_free, require_one_free
from fedbench.errors import HostError


def listener(address: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((address, 0))


def number(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


@pytest.fixture
def free() -> dict[str, int]:
    """Three ports that nobody listens on."""
    sockets = [listener() for _ in range(3)]
    ports = [number(each) for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(("server", "prometheus", "grafana"), ports, strict=True))


@pytest.fixture
def taken() -> Iterator[int]:
    with listener() as listening:
        yield number(listening)


def test_free_ports_are_fine(free: dict[str, int]) -> None:
    require_free(Ports(**free))


@pytest.mark.parametrize("name", ["server", "prometheus", "grafana"])
def test_a_taken_port_is_named_with_its_owner(name: str, free: dict[str, int], taken: int) -> None:
    process = psutil.Process()
    with pytest.raises(HostError) as caught:
        require_free(Ports(**free | {name: taken}))
    assert caught.value.message == (
        f"port {taken} ({name}) is taken by {process.name()} (pid {process.pid})"
    )
    assert caught.value.hint.startswith(
        f"stop what uses it, or choose another: --set ports.{name}="
    )


def test_a_federation_may_keep_the_ports_it_holds(free: dict[str, int], taken: int) -> None:
    require_free(Ports(**free | {"server": taken}), ours=[taken])


def test_two_services_cannot_share_a_port(free: dict[str, int]) -> None:
    port = free["server"]
    with pytest.raises(HostError) as caught:
        require_free(Ports(**free | {"grafana": port}))
    assert caught.value.message == f"ports.server and ports.grafana are both {port}"
    assert caught.value.hint.startswith("choose another: --set ports.server=")


def test_the_ports_are_checked_where_they_are_published(free: dict[str, int]) -> None:
    with listener("127.0.0.2") as elsewhere:
        port = number(elsewhere)
        require_free(Ports(**free | {"prometheus": port}))  # 127.0.0.1 only
        with pytest.raises(HostError, match=rf"port {port} \(server\) is taken"):
            require_free(Ports(**free | {"server": port}))  # all addresses


def test_an_owner_that_cannot_be_seen_is_left_out(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    with pytest.raises(HostError) as caught:
        require_one_free("metrics", taken, "--metrics-port ")
    assert caught.value.message == f"port {taken} (metrics) is taken"


@pytest.mark.parametrize(("port", "other"), [(9101, 9111), (65535, 65525)])
def test_the_port_that_a_hint_proposes_exists(
    port: int, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fedbench.engines.containers.runtime.ports._is_free", lambda address, port: False
    )
    with pytest.raises(HostError) as caught:
        require_one_free("metrics", port, "--metrics-port ")
    assert caught.value.hint == f"stop what uses it, or choose another: --metrics-port {other}"
