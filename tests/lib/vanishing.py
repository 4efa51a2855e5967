"""Docker as it is while a container is removed: listed, and gone when it is looked at."""

from __future__ import annotations

from typing import Any

import docker
from docker.errors import NotFound


class _Api:
    def containers(self, **_: object) -> list[dict[str, Any]]:
        return [{"Id": "gone"}]

    def inspect_container(self, container: str) -> None:
        raise NotFound(f"no such container: {container}")


def vanishing_docker() -> docker.DockerClient:
    """The real library's client, without a daemon."""
    client = docker.DockerClient("unix:///nowhere", version="1.43")
    client.api.close()
    client.api = _Api()
    return client
