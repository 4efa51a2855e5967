"""What is up right now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedbench.engines.containers.runtime import daemon
from fedbench.engines.containers.runtime.containers import Container
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import DamagedFileError, RunError
from fedbench.host.watch.vigil import is_watched
from fedbench.records.runs import Run, RunStore


def status(stack: Stack) -> dict[str, Any]:
    """Return the stack's containers, its newest run and where to look."""
    services = stack.services(daemon.connect(lambda _: None))
    try:
        run = RunStore(stack.places.runs).find(None)
    except RunError:
        run = None
    return {
        "profile": stack.profile.name,
        "dilation": stack.dilation,
        "containers": [_row(services[name]) for name in sorted(services)],
        "run": run and run.id,
        "run_status": run and _state(run),
        "problems": _problems(run, services),
        "prometheus": stack.prometheus_url,
        "grafana": stack.grafana_url,
    }


def _state(run: Run) -> str:
    try:
        return run.state()
    except DamagedFileError as error:
        return f"unknown: {error.message}"


def _problems(run: Run | None, services: Mapping[str, Container]) -> list[str]:
    """Name what does not run though a run needs it."""
    if run is None or not run.is_executing():
        return []
    ended = [
        f"{name} is {container.status}, exit code {container.exit_code}"
        for name, container in sorted(services.items())
        if not container.is_running
    ]
    if is_watched(run):
        return ended
    return [
        *ended,
        f"nobody watches over run {run.id}, or starts again what is killed: "
        f"`make run RESUME={run.id}` does",
    ]


def _row(container: Container) -> dict[str, Any]:
    quota = "all" if container.cpus is None else container.cpus
    return {
        "service": container.service,
        "state": container.status,
        "health": container.health or "-",
        "cpus": container.cpuset or quota,
        "memory": f"{container.memory / 2**20:.0f} MiB" if container.memory else "-",
        "killed_for_memory": container.killed_for_memory,
    }
