"""Puts the networks of emulated devices in force, as far as this kernel can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker
from docker.models.containers import Container

from fedbench.config import Network
from fedbench.engines.containers.runtime import helper
from fedbench.engines.containers.runtime.cgroup_parents import pid_of
from fedbench.errors import DockerError
from fedbench.host.plan.networks import Capabilities

# To enter another container's network (ptrace opens it, admin goes there) and to change it.
_RIGHTS = {
    "cap_add": ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"],
    "security_opt": ["apparmor=unconfined"],
}


def probe(client: docker.DockerClient, image: str) -> Capabilities:
    """What the kernel can do; tried in a helper container, in about a second.

    Raises:
        DockerError: the helper cannot be run.
    """
    return Capabilities(**helper.run(client, image, {"probe": []}, **_RIGHTS))


def shape(
    client: docker.DockerClient, image: str, links: Mapping[Container, Network | None]
) -> None:
    """Puts each container's network in force, in the place of what was; None is no limit.

    A restart of a container takes it off: `State.StartedAt` tells. What the kernel cannot do is
    left out.

    Raises:
        DockerError: a container is not running or has the host's network, or the kernel refuses.
    """
    order = [{"pid": _pid(container), **_fields(network)} for container, network in links.items()]
    if order:
        helper.run(client, image, {"shape": order}, **_RIGHTS)


def _pid(container: Container) -> int:
    pid = pid_of(container)
    if container.attrs["HostConfig"]["NetworkMode"] == "host":
        raise DockerError(f"{container.name} has the host's network, which is not shaped")
    return pid


def _fields(network: Network | None) -> dict[str, Any]:
    keys = {"down", "up", "delay", "jitter", "loss"}
    return network.model_dump(include=keys) if network else {}
