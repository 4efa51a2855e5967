"""Puts the networks of emulated devices in force, as far as this kernel can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedbench.config import Network
from fedbench.engines.containers.runtime import helper
from fedbench.engines.containers.runtime.cgroup_parents import look_running
from fedbench.engines.containers.runtime.containers import Container, Containers
from fedbench.errors import DockerError
from fedbench.host.plan.networks import Capabilities

# To enter another container's network (ptrace opens it, admin goes there) and to change it.
_RIGHTS = {
    "capabilities": ("NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"),
    "security_options": ("apparmor=unconfined",),
}


def probe(containers: Containers, image: str) -> Capabilities:
    """Try in a helper container what the kernel can do, in about a second.

    Raises:
        DockerError: the helper cannot be run.
    """
    return Capabilities(**helper.run(containers, image, {"probe": []}, **_RIGHTS))


def shape(
    containers: Containers, image: str, networks: Sequence[tuple[Container, Network | None]]
) -> None:
    """Put each container's network in force, in the place of what was; None is no limit.

    A restart of a container takes it off: `started_at` tells. What the kernel cannot do is left
    out.

    Raises:
        DockerError: a container is not running or has the host's network, or the kernel refuses.
    """
    order = [
        {"pid": _pid(containers, container), **_fields(network)} for container, network in networks
    ]
    if order:
        helper.run(containers, image, {"shape": order}, **_RIGHTS)


def switch(containers: Containers, image: str, container: Container, *, up: bool) -> None:
    """Take a container's link to its network down, as if the cable was pulled, or up again.

    Raises:
        DockerError: the container is not running or has the host's network, or the kernel refuses.
    """
    order = {"switch": {"pid": _pid(containers, container), "up": up}}
    helper.run(containers, image, order, **_RIGHTS)


def _pid(containers: Containers, container: Container) -> int:
    now = look_running(containers, container)
    if now.network_mode == "host":
        raise DockerError(f"{now.name} has the host's network, which is not shaped")
    return now.pid


def _fields(network: Network | None) -> dict[str, Any]:
    keys = {"down", "up", "delay", "jitter", "loss"}
    return network.model_dump(include=keys) if network else {}
