"""One federation for all end-to-end tests: brought up as the README says, taken down at the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import docker
import pytest
from docker.models.containers import Container
from harness import PROJECT, ROOT, SET_PORTS, Done, leftovers, purge, run


@pytest.fixture(scope="session")
def clean(docker_client: docker.DockerClient) -> Iterator[docker.DockerClient]:
    """Docker without anything of the tests, before and after; nor are the tests' runs kept."""
    before = set((ROOT / "runs").glob("*"))
    purge(docker_client)
    try:
        yield docker_client
    finally:
        purge(docker_client)
        assert leftovers(docker_client) == []
        for path in set((ROOT / "runs").glob("*")) - before:
            shutil.rmtree(path)
        shutil.rmtree(ROOT / "data" / PROJECT, ignore_errors=True)
        shutil.rmtree(ROOT / ".fedbench" / PROJECT, ignore_errors=True)


@pytest.fixture(scope="session")
def first_run(clean: docker.DockerClient) -> Done:
    """The README's first command, as it stands there, on a machine with nothing up."""
    return run("make", "up", "PROFILE=heterogeneous", SET=SET_PORTS, timeout=1800)


@pytest.fixture
def containers(first_run: Done, clean: docker.DockerClient) -> Callable[[], dict[str, Container]]:
    """The federation's containers by service, as they are now."""

    def find() -> dict[str, Container]:
        label = f"com.docker.compose.project={PROJECT}"
        found = clean.containers.list(all=True, filters={"label": label})
        return {c.labels["com.docker.compose.service"]: c for c in found}

    return find
