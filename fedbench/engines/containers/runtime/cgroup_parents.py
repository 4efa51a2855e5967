"""The CPU quotas of the cgroups that hold a computer's clients, which Docker has no option for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbench.engines.containers.runtime import helper
from fedbench.engines.containers.runtime.containers import Container, Containers
from fedbench.errors import DockerError, HostError
from fedbench.helper.cgroup import container_cgroup, set_parent_quota

_ROOT = Path("/")
_CGROUPS = "/sys/fs/cgroup"


@dataclass(frozen=True)
class ParentQuota:
    """What a container's parent cgroup may use: in us of CPU time a period, -1 for no limit."""

    container: Container
    period: int
    quota: int


def set_quotas(containers: Containers, image: str, quotas: Sequence[ParentQuota]) -> None:
    """Set the quota of each container's parent cgroup.

    Root on the containers' own host does so at once; others in one helper container of `image` for
    all. On cgroup v1 no container may have a larger share than its parent.

    Raises:
        DockerError: a container is not running, or the kernel refuses.
    """
    running = [look_running(containers, each.container) for each in quotas]
    order = [
        {"pid": container.pid, "period": each.period, "quota": each.quota}
        for container, each in zip(running, quotas, strict=True)
    ]
    if not all(_reachable(containers, container) for container in running):
        helper.run(containers, image, {"quotas": order}, host_cgroups=True, mounts=(_CGROUPS,))
        return
    try:
        for entry in order:
            set_parent_quota(_ROOT, **entry)
    except HostError as error:
        raise DockerError(error.message) from None


def look_running(containers: Containers, container: Container) -> Container:
    """Look at a container again, for a restart changes its first process.

    Raises:
        DockerError: it is not running.
    """
    now = containers.look(container)
    if not now.pid:
        raise DockerError(f"{container.name} is not running", "`fedbench logs` says why")
    return now


def _reachable(containers: Containers, container: Container) -> bool:
    """Tell whether this process may write to a container's cgroups: it is root on its host."""
    if os.geteuid() != 0 or not containers.local:
        return False
    try:
        folder = container_cgroup(_ROOT, container.pid)
    except HostError:
        return False
    return container.id in folder.name and os.access(folder.parent, os.W_OK)
