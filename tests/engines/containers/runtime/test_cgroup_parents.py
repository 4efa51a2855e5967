"""Two containers that burn CPU in one cgroup, as two clients of one computer do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import docker
import pytest
from docker.models.containers import Container
from harness import CHECKOUT, PROJECT, remove_named

from fedbench.engines.containers.runtime import cgroup_parents
from fedbench.engines.containers.runtime.cgroup_parents import ParentQuota
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.errors import DockerError

pytestmark = pytest.mark.docker

PERIOD = 50_000
SECONDS = 2.0  # forty periods


@pytest.fixture
def burners(docker_client: docker.DockerClient, helper_image: str) -> Iterator[list[Container]]:
    """Each takes a core where it is let."""
    remove_named(docker_client, f"{PROJECT}-burner")
    systemd = docker_client.info()["CgroupDriver"] == "systemd"
    parent = f"fedbenchtest{CHECKOUT}.slice" if systemd else f"/{PROJECT}-burners"
    found = [
        docker_client.containers.run(
            helper_image,
            ["python", "-c", "while True: pass"],
            name=f"{PROJECT}-burner-{number}",
            cgroup_parent=parent,
            network_mode="none",
            cpu_period=PERIOD,
            detach=True,
        )
        for number in range(2)
    ]
    try:
        yield found
    finally:
        for container in found:
            container.remove(force=True)


Limit = Callable[..., None]


@pytest.fixture
def limit(docker_containers: Containers, helper_image: str) -> Limit:
    """Gives the cgroup that holds a burner a quota."""

    def set_quota(burner: Container, quota: int, image: str = helper_image) -> None:
        there = docker_containers.named(str(burner.name))
        assert there is not None
        parent = ParentQuota(there, PERIOD, quota)
        cgroup_parents.set_quotas(docker_containers, image, [parent])

    return set_quota


def cpus_used(containers: list[Container]) -> float:
    """CPUs that they use together, over some seconds."""

    def used() -> float:
        stats = [container.stats(stream=False, one_shot=True) for container in containers]
        return sum(stat["cpu_stats"]["cpu_usage"]["total_usage"] for stat in stats) / 1e9

    before, start = used(), time.monotonic()
    time.sleep(SECONDS)
    return (used() - before) / (time.monotonic() - start)


@pytest.mark.parametrize("direct", [True, False], ids=["directly", "by the helper"])
def test_containers_share_their_parents_quota(
    direct: bool,
    burners: list[Container],
    limit: Limit,
    helper_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, _ = burners
    if not direct:
        monkeypatch.setattr(cgroup_parents, "_reachable", lambda *_: False)
    image = "no-such-image" if direct else helper_image
    for quota in (20_000, 10_000):
        limit(first, quota, image)
        assert cpus_used(burners) == pytest.approx(quota / PERIOD, rel=0.1)
    limit(first, -1, image)
    assert cpus_used(burners) > 0.5


def test_what_the_helper_meets_is_reported(
    burners: list[Container],
    limit: Limit,
    helper_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cgroup_parents, "_reachable", lambda *_: False)
    with pytest.raises(DockerError, match=r"the kernel refuses.*Invalid argument"):
        limit(burners[0], 1)


def test_a_container_that_ended_is_named(burners: list[Container], limit: Limit) -> None:
    burners[0].kill()
    with pytest.raises(DockerError, match=f"{PROJECT}-burner-0 is not running"):
        limit(burners[0], 20_000)
