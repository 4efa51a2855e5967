"""Whether the ports that a federation publishes are free, and if not, who has them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import psutil

from fedbench.config import Ports
from fedbench.errors import HostError


def require_free(ports: Ports, ours: Iterable[int] = ()) -> None:
    """Checks all ports of a profile but those that this federation itself holds already.

    Raises:
        HostError: two of them are the same, or one is taken.
    """
    wanted = ports.model_dump()
    for name, port in wanted.items():
        twins = [other for other, number in wanted.items() if number == port and other != name]
        if twins:
            raise HostError(f"ports.{name} and ports.{twins[0]} are both {port}", _hint(name, port))
        address = "0.0.0.0" if name == "server" else "127.0.0.1"  # noqa: S104 (as published)
        if port not in ours and not _is_free(address, port):
            raise HostError(f"port {port} ({name}) is taken{_owner(port)}", _hint(name, port))


def _hint(name: str, port: int) -> str:
    return f"stop what uses it, or choose another: --set ports.{name}={port + 10}"


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
