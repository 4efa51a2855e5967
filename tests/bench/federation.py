"""Brings a federation up as a user would, in a project and on ports of the benchmarks' own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import containers
from docker.models.containers import Container

PROJECT = "fedbench-bench"
PORTS = {"server": 49092, "prometheus": 49090, "grafana": 49300}
LOOK_SECONDS = 0.1


class Federation:
    """One that is up, and the summary of its first run."""

    def __init__(self, first: dict[str, Any]) -> None:
        self.first = first

    def run(self, *arguments: str, look: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Another run; returns its summary. `look` is called every 0.1 s meanwhile."""
        return _run("run", *arguments, look=look)

    def container(self, service: str) -> Container:
        """The container of a service."""
        project = f"com.docker.compose.project={PROJECT}"
        labels = [project, f"com.docker.compose.service={service}"]
        return containers.client().containers.list(filters={"label": labels})[0]

    def restart(self, service: str) -> Container:
        """Starts a container anew and waits until it is healthy."""
        self.container(service).restart()
        while (container := self.container(service)).health != "healthy":
            time.sleep(0.5)
        return container


@contextmanager
def federation(
    profile: str, *arguments: str, look: Callable[[], None] = lambda: None
) -> Iterator[Federation]:
    """The federation of a profile after a first run; nothing of it is left afterwards."""
    ports = [f"--set=ports.{name}={port}" for name, port in PORTS.items()]
    containers.image()
    try:
        yield Federation(_run("up", profile, *arguments, *ports, look=look))
    finally:
        _start("down", "--volumes").communicate()
        for folder in ("data", ".fedbench"):
            shutil.rmtree(containers.ROOT / folder / PROJECT, ignore_errors=True)


def _run(*arguments: str, look: Callable[[], None] = lambda: None) -> dict[str, Any]:
    process = _start(*arguments, "--json")
    while True:
        try:
            output, _ = process.communicate(timeout=LOOK_SECONDS)
            break
        except subprocess.TimeoutExpired:
            look()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    summary: dict[str, Any] = json.loads(output)
    shutil.rmtree(containers.ROOT / "runs" / summary["run"])
    return summary


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(containers.ROOT / ".venv/bin/fedbench"), *arguments],
        env={**os.environ, "FEDBENCH_PROJECT": PROJECT, "FEDBENCH_YES": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
