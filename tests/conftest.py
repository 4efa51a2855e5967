from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

from fedbench.errors import DockerError
from fedbench.host import bootstrap
from fedbench.host.machine import Machine


@pytest.fixture(scope="session")
def docker_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    """A client of this host's Docker; a daemon started for the tests ends with them, not before.

    It is recorded in a folder of the tests' own, where `fedbench down` does not find it.
    """
    machine = Machine(state=tmp_path_factory.mktemp("docker"))
    try:
        client = bootstrap.ensure_docker(print, machine)
    except DockerError as error:
        pytest.skip(f"{error.message} ({error.hint})")
    try:
        yield client
    finally:
        client.close()
        bootstrap.stop_daemon(print, machine)
