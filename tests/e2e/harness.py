"""Runs commands in this checkout as a user would, on ports and under a name of the tests' own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import docker

ROOT = Path(__file__).resolve().parents[2]
# Of this checkout alone: others run their tests beside it. What a session that was killed leaves,
# the next one of the same checkout finds.
CHECKOUT = zlib.crc32(str(ROOT).encode())
PROJECT = f"fedbench-test-{CHECKOUT:08x}"
STATE = ROOT / ".fedbench" / PROJECT


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def free_ports(number: int) -> list[int]:
    """Ports that nobody has, below those that the kernel gives away by itself."""
    return list(islice(filter(is_free, count(20_000 + CHECKOUT % 10_000)), number))


*_PORTS, METRICS_PORT = free_ports(4)
PORTS = dict(zip(("server", "prometheus", "grafana"), _PORTS, strict=True))
SET_PORTS = " ".join(f"ports.{name}={port}" for name, port in PORTS.items())


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code and what it printed."""

    code: int
    output: str


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "FEDBENCH_PROJECT": PROJECT, "FEDBENCH_YES": "1", **variables}


def run(*argv: str, timeout: float = 600, **variables: str) -> Done:
    """Runs a command in the checkout; its children end with it, however it ends."""
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        print(output)
        raise
    print(output)
    return Done(process.returncode, output)


def fedbench(*arguments: str, **options: Any) -> Done:
    return run(str(ROOT / ".venv/bin/fedbench"), *arguments, **options)


def run_id(output: str) -> str:
    found = re.findall(r"^run (\S+)$", output, re.MULTILINE)
    assert found, output
    return str(found[-1])


def summary(run: str) -> dict[str, Any]:
    text = (ROOT / "runs" / run / "summary.json").read_text()
    return dict(json.loads(text))


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def until(condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """Waits for something that must come true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.5)
    return value


def leftovers(client: docker.DockerClient) -> list[str]:
    """Names of whatever of the tests' project is still there."""
    mine = {"label": f"com.docker.compose.project={PROJECT}"}
    joined = {"label": f"fedbench.joined={PROJECT}"}
    found = [
        *client.containers.list(all=True, filters=mine),
        *client.containers.list(all=True, filters=joined),
        *client.networks.list(filters=mine),
        *client.volumes.list(filters=mine),
    ]
    return [str(thing.name) for thing in found]


def remove_named(client: docker.DockerClient, name: str) -> None:
    """Remove containers and networks that a killed session left under names beginning with this."""
    for container in client.containers.list(all=True, filters={"name": f"^{name}"}):
        container.remove(force=True)
    for network in client.networks.list(filters={"name": f"^{name}"}):
        network.remove()


def purge(client: docker.DockerClient) -> None:
    """Removes it all, after a session that was killed as well: by label, not by any record."""
    for label in (f"com.docker.compose.project={PROJECT}", f"fedbench.joined={PROJECT}"):
        for container in client.containers.list(all=True, filters={"label": label}):
            container.remove(force=True, v=True)
    for network in client.networks.list(filters={"label": f"com.docker.compose.project={PROJECT}"}):
        network.remove()
    for volume in client.volumes.list(filters={"label": f"com.docker.compose.project={PROJECT}"}):
        volume.remove()
