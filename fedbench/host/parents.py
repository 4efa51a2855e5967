from __future__ import annotations

from collections.abc import Mapping

import docker
from docker.models.containers import Container


def set_quotas(
    client: docker.DockerClient, image: str, quotas: Mapping[Container, tuple[int, int]]
) -> None:
    raise NotImplementedError
