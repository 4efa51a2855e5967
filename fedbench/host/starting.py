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
from docker.errors import APIError
from docker.models.containers import Container

from fedbench.errors import DockerError
from fedbench.host.machine import Say
from fedbench.host.plan import CPU_PERIOD
from fedbench.host.stack import Stack

READY_SECONDS = 600.0
POLL_SECONDS = 0.2
_UNLIMITED = -1

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
    for service, container in stack.containers(client).items():
        began = (str(container.id), str(container.attrs["State"]["StartedAt"]))
        if service in stack.quotas and began not in before:
            _set_quota(container, _UNLIMITED)


def enforce_quotas(stack: Stack, client: docker.DockerClient) -> None:
    """Puts every client's CPU quota in force, if it is not.

    Raises:
        DockerError: a quota cannot be changed.
    """
    for service, container in stack.containers(client).items():
        _enforce(stack, service, container)


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
    waiting = []
    names = {planned["name"] for planned in stack.clients}
    for service, container in sorted(stack.containers(client).items()):
        _require_alive(service, container)
        if service in names and container.attrs["State"]["Health"]["Status"] != "healthy":
            waiting.append(service)
        else:
            _enforce(stack, service, container)
    return waiting


def _require_alive(service: str, container: Container) -> None:
    state = container.attrs["State"]
    if container.attrs["RestartCount"] > 3 or state["Status"] in ("exited", "dead"):
        raise DockerError(
            f"{service} does not stay up (exit code {state['ExitCode']}"
            f"{', killed for memory' if state['OOMKilled'] else ''})\n{_tail(container)}",
            "see `make logs`",
        )


def _enforce(stack: Stack, service: str, container: Container) -> None:
    quota = stack.quotas.get(service)
    if quota and container.attrs["HostConfig"]["CpuQuota"] != quota:
        _set_quota(container, quota)


def _set_quota(container: Container, quota: int) -> None:
    try:
        container.update(cpu_period=CPU_PERIOD, cpu_quota=quota)
    except APIError as error:
        raise DockerError(
            f"{container.name}: its CPU quota cannot be changed: {error.explanation}",
            "`make down` takes the federation down",
        ) from None


def _tail(container: Container) -> str:
    return container.logs(tail=15).decode(errors="replace").rstrip()
