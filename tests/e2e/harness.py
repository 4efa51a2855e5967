"""Runs commands in this checkout as a user would, on ports and under a name of the tests' own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "fedbench-test"
PORTS = {"server": 29092, "prometheus": 29090, "grafana": 23000}
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


def purge(client: docker.DockerClient) -> None:
    """Removes it all, after a session that was killed as well: by label, not by any record."""
    for label in (f"com.docker.compose.project={PROJECT}", f"fedbench.joined={PROJECT}"):
        for container in client.containers.list(all=True, filters={"label": label}):
            container.remove(force=True, v=True)
    for network in client.networks.list(filters={"label": f"com.docker.compose.project={PROJECT}"}):
        network.remove()
    for volume in client.volumes.list(filters={"label": f"com.docker.compose.project={PROJECT}"}):
        volume.remove()
