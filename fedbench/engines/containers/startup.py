"""From containers that were started to clients that take part.

Importing torch takes some seconds of CPU: under a legacy PC's quota, many times that in wall time.
So a client starts without its quota, and gets it when it is ready. It takes part only once it sees
the quota in its own cgroup (`fedbench.client`): whatever becomes of this process in between,
nothing is trained faster than planned.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Set

from fedbench.engines.containers.runtime.containers import Container, Containers
from fedbench.engines.containers.runtime.quotas import Quotas
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import DockerError
from fedbench.host.say import Say

READY_SECONDS = 600.0
POLL_SECONDS = 0.2

Starts = Set[tuple[str, str]]


def starts(stack: Stack, containers: Containers) -> Starts:
    """Return the ids of the stack's containers, and when each was started last."""
    return {_start(container) for container in stack.services(containers).values()}


def lift_quotas(stack: Stack, containers: Containers, before: Starts) -> None:
    """Lift the CPU quota of the clients that were started since `before`.

    Raises:
        DockerError: a quota cannot be changed.
    """
    services = stack.services(containers)
    began = {name: _start(container) for name, container in services.items()}
    clients = [plan.name for plan in stack.clients if plan.name in began]
    names = [name for name in clients if began[name] not in before]
    Quotas(stack, containers).lift(names)


def enforce_quotas(stack: Stack, containers: Containers) -> None:
    """Put every client's CPU quota in force, if it is not.

    Raises:
        DockerError: a quota cannot be changed.
    """
    Quotas(stack, containers).enforce([plan.name for plan in stack.clients])


def renew_quotas(
    stack: Stack, containers: Containers, services: Mapping[str, Container], before: Starts
) -> Starts:
    """Put quotas in force again for clients that were started since `before`; return the starts.

    Docker keeps a container's own; what the clients of one computer share it does not know.

    Raises:
        DockerError: a quota cannot be changed.
    """
    now = {_start(container) for container in services.values()}
    if now != before:
        there = [plan for plan in stack.clients if plan.name in services]
        new = [p.name for p in there if _start(services[p.name]) not in before]
        Quotas(stack, containers).renew(new)
    return now


def _start(container: Container) -> tuple[str, str]:
    return container.id, container.started_at


def wait_ready(
    stack: Stack, containers: Containers, say: Say, seconds: float = READY_SECONDS
) -> None:
    """Wait until every client is connected and has its quota, and name those that do not yet.

    Raises:
        DockerError: a container died or a client did not get there, with its last lines; or a
            quota cannot be changed.
    """
    deadline = time.monotonic() + seconds
    before: list[str] = []
    while waiting := _settle(stack, containers):
        if waiting != before:
            say(f"waiting for {', '.join(waiting)}")
            before = waiting
        if time.monotonic() > deadline:
            raise DockerError(
                f"{', '.join(waiting)}: not ready after {seconds:.0f} s\n"
                + _tail(containers, stack.services(containers)[waiting[0]]),
                "see `make logs`",
            )
        time.sleep(POLL_SECONDS)


def _settle(stack: Stack, containers: Containers) -> list[str]:
    """Give clients that are ready their quotas; returns those that are not."""
    waiting: list[str] = []
    ready: list[str] = []
    names = {plan.name for plan in stack.clients}
    for service, container in sorted(stack.services(containers).items()):
        _require_alive(containers, container)
        if service in names:
            (ready if container.health == "healthy" else waiting).append(service)
    Quotas(stack, containers).enforce(ready)
    return waiting


def _require_alive(containers: Containers, container: Container) -> None:
    if container.restarts > 3 or container.status in ("exited", "dead"):
        why = ", killed for memory" if container.killed_for_memory else ""
        raise DockerError(
            f"{container.service} does not stay up (exit code {container.exit_code}{why})\n"
            + _tail(containers, container),
            "see `make logs`",
        )


def _tail(containers: Containers, container: Container) -> str:
    return containers.tail(container, lines=15)
