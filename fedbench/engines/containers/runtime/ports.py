"""Whether the ports that a federation publishes are free, and if not, who has them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import psutil

from fedbench.config import Ports
from fedbench.errors import HostError

_LOCAL = ("prometheus", "grafana")  # published to localhost only


def require_free(ports: Ports, ours: Iterable[int] = ()) -> None:
    """Check all ports of a profile but those that this federation itself holds already.

    Raises:
        HostError: two of them are the same, or one is taken.
    """
    wanted = ports.model_dump()
    for name, port in wanted.items():
        option = f"--set ports.{name}="
        twins = [other for other, number in wanted.items() if number == port and other != name]
        if twins:
            raise HostError(
                f"ports.{name} and ports.{twins[0]} are both {port}", _hint(option, port)
            )
        if port not in ours:
            require_one_free(name, port, option)


def require_one_free(name: str, port: int, option: str) -> None:
    """Check the port of what is called `name`; `option` is what chooses another.

    Raises:
        HostError: it is taken.
    """
    address = "127.0.0.1" if name in _LOCAL else "0.0.0.0"  # noqa: S104 (as published)
    if not _is_free(address, port):
        raise HostError(
            f"port {port} ({name}) is taken{_owner(port)}",
            f"stop what uses it, or {_hint(option, port)}",
        )


def _hint(option: str, port: int) -> str:
    return f"choose another: {option}{port + 10 if port <= 65525 else port - 10}"


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _owner(port: int) -> str:
    try:
        connections: list[Any] = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr
        if listens and connection.laddr.port == port:
            return f" by {_process(connection.pid)}" if connection.pid else ""
    return ""


def _process(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.NoSuchProcess:
        return f"pid {pid}"
