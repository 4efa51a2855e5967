"""From containers that were started to clients that take part.

Importing torch takes some seconds of CPU: under a legacy PC's quota, many times that in wall time.
So a client starts without its quota, and gets it when it is ready. It takes part only once it sees
the quota in its own cgroup (`fedbench.client`): whatever becomes of this process in between,
nothing is trained faster than planned.
"""

from __future__ import annotations

import time
from collections.abc import Set

import docker
from docker.models.containers import Container

from fedbench.engines.containers.runtime.quotas import Quotas
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import DockerError
from fedbench.host.setup.machine import Say

READY_SECONDS = 600.0
POLL_SECONDS = 0.2

Starts = Set[tuple[str, str]]


def starts(stack: Stack, client: docker.DockerClient) -> Starts:
    """Which containers the stack has, and when each was started last."""
    found = stack.containers(client).values()
    return {(str(c.id), str(c.attrs["State"]["StartedAt"])) for c in found}


def lift_quotas(stack: Stack, client: docker.DockerClient, before: Starts) -> None:
    """Lifts the CPU quota of the clients that were started since `before`.

    Raises:
        DockerError: a quota cannot be changed.
    """
    found = stack.containers(client)
    began = {name: (str(c.id), str(c.attrs["State"]["StartedAt"])) for name, c in found.items()}
    clients = [plan.name for plan in stack.clients if plan.name in began]
    names = [name for name in clients if began[name] not in before]
    Quotas(stack, client, found).lift(names)


def enforce_quotas(stack: Stack, client: docker.DockerClient) -> None:
    """Puts every client's CPU quota in force, if it is not.

    Raises:
        DockerError: a quota cannot be changed.
    """
    found = stack.containers(client)
    Quotas(stack, client, found).enforce([plan.name for plan in stack.clients])


def wait_ready(
    stack: Stack, client: docker.DockerClient, say: Say, seconds: float = READY_SECONDS
) -> None:
    """Waits until every client is connected and has its quota, and names those that do not yet.

    Raises:
        DockerError: a container died or a client did not get there, with its last lines; or a
            quota cannot be changed.
    """
    deadline = time.monotonic() + seconds
    before: list[str] = []
    while waiting := _settle(stack, client):
        if waiting != before:
            say(f"waiting for {', '.join(waiting)}")
            before = waiting
        if time.monotonic() > deadline:
            raise DockerError(
                f"{', '.join(waiting)}: not ready after {seconds:.0f} s\n"
                + _tail(stack.containers(client)[waiting[0]]),
                "see `make logs`",
            )
        time.sleep(POLL_SECONDS)


def _settle(stack: Stack, client: docker.DockerClient) -> list[str]:
    """Gives clients that are ready their quotas; returns those that are not."""
    waiting: list[str] = []
    ready: list[str] = []
    names = {plan.name for plan in stack.clients}
    found = stack.containers(client)
    for service, container in sorted(found.items()):
        _require_alive(service, container)
        if service in names:
            healthy = container.attrs["State"]["Health"]["Status"] == "healthy"
            (ready if healthy else waiting).append(service)
    Quotas(stack, client, found).enforce(ready)
    return waiting


def _require_alive(service: str, container: Container) -> None:
    state = container.attrs["State"]
    if container.attrs["RestartCount"] > 3 or state["Status"] in ("exited", "dead"):
        raise DockerError(
            f"{service} does not stay up (exit code {state['ExitCode']}"
            f"{', killed for memory' if state['OOMKilled'] else ''})\n{_tail(container)}",
            "see `make logs`",
        )


def _tail(container: Container) -> str:
    return container.logs(tail=15).decode(errors="replace").rstrip()
