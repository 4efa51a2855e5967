from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

from fedbench.errors import DockerError
from fedbench.host import bootstrap


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """A client of this host's Docker; a daemon started for the tests ends with them."""
    was_ours = bootstrap.daemon_is_ours()
    try:
        client = bootstrap.ensure_docker(print)
    except DockerError as error:
        pytest.skip(f"{error.message} ({error.hint})")
    try:
        yield client
    finally:
        client.close()
        if not was_ours:
            bootstrap.stop_daemon(print)
