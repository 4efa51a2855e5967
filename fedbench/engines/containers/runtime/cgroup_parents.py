"""The CPU quotas of the cgroups that hold a computer's clients, which Docker has no option for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import docker
from docker.errors import DockerException
from docker.models.containers import Container

from fedbench.engines.containers.runtime import helper
from fedbench.errors import DockerError, HostError
from fedbench.helper.cgroup import container_cgroup, set_parent_quota

_ROOT = Path("/")
_CGROUPS = "/sys/fs/cgroup"


def set_quotas(
    client: docker.DockerClient, image: str, quotas: Mapping[Container, tuple[int, int]]
) -> None:
    """Sets the quota of each container's parent cgroup: (period, quota) in us, -1 for none.

    Root on Docker's own host does so at once; others in one helper container of `image` for all.
    On cgroup v1 no container may have a larger share than its parent.

    Raises:
        DockerError: a container is not running, or the kernel refuses.
    """
    pids = {container: pid_of(container) for container in quotas}
    order = [
        {"pid": pids[container], "period": period, "quota": quota}
        for container, (period, quota) in quotas.items()
    ]
    if not all(_reachable(client, container, pid) for container, pid in pids.items()):
        mount = {_CGROUPS: {"bind": _CGROUPS, "mode": "rw"}}
        helper.run(client, image, {"quotas": order}, cgroupns="host", volumes=mount)
        return
    try:
        for entry in order:
            set_parent_quota(_ROOT, **entry)
    except HostError as error:
        raise DockerError(error.message) from None


def pid_of(container: Container) -> int:
    """A container's first process as it is now: a restart changes it."""
    try:
        container.reload()
    except DockerException as error:
        raise DockerError(f"{container.name}: cannot be looked at: {error}") from None
    if not (pid := container.attrs["State"]["Pid"]):
        raise DockerError(f"{container.name} is not running", "`fedbench logs` says why")
    return int(pid)


def _reachable(client: docker.DockerClient, container: Container, pid: int) -> bool:
    """Whether this process may write to the cgroups of a container: it is root on Docker's host."""
    if os.geteuid() != 0 or not client.api.base_url.startswith("http+docker://"):
        return False
    try:
        folder = container_cgroup(_ROOT, pid)
    except HostError:
        return False
    return str(container.id) in folder.name and os.access(folder.parent, os.W_OK)
