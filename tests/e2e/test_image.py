from __future__ import annotations

from pathlib import Path

import docker
import pytest

from fedbench import __version__
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.host.setup import bootstrap
from fedbench.host.setup.bootstrap import Images
from fedbench.host.setup.images import content

pytestmark = pytest.mark.docker
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def images(docker_containers: Containers) -> Images:
    return bootstrap.ensure_images(docker_containers, print, root=ROOT)


def output(
    client: docker.DockerClient, image: str, *argv: str, user: str | None = None
) -> list[str]:
    """What a command prints in a container that is locked up like those of a federation."""
    printed = client.containers.run(
        image,
        list(argv[1:]),
        entrypoint=argv[0],
        user=user,
        read_only=True,
        tmpfs={"/tmp": "", "/prometheus": ""},
        network_mode="none",
        cap_drop=["ALL"],
        remove=True,
    )
    return bytes(printed).decode().splitlines()


def test_runs_as_an_ordinary_user(docker_client: docker.DockerClient, images: Images) -> None:
    assert output(docker_client, images.fedbench, "id", "-u") == ["10001"]


@pytest.mark.parametrize("user", [None, "4242:4242"], ids=["its own user", "any user"])
def test_a_node_trains_on_a_read_only_root(
    docker_client: docker.DockerClient, images: Images, user: str | None
) -> None:
    script = """
import flwr, prometheus_client, torch
from fedbench.learning.data import ImageSet
from fedbench.learning.models import build
from fedbench.learning.train import train
images = ImageSet(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), torch.arange(2), ("a", "b"))
train(build("mobilenet_v2", 2), images, epochs=1, batch_size=2, learning_rate=0.001, seed=0)
print(flwr.__version__, torch.__version__.split("+")[0])
"""
    printed = output(
        docker_client, images.fedbench, "python", "-W", "ignore", "-c", script, user=user
    )
    assert printed == ["1.42.0 2.13.0"]


def test_memory_comes_from_jemalloc(docker_client: docker.DockerClient, images: Images) -> None:
    maps = output(docker_client, images.fedbench, "cat", "/proc/self/maps")
    assert any(line.endswith("/opt/lib/libjemalloc.so.2") for line in maps)


def test_is_at_most_a_gigabyte(docker_client: docker.DockerClient, images: Images) -> None:
    assert docker_client.images.get(images.fedbench).attrs["Size"] <= 1.0e9


def test_is_labelled_with_its_version(docker_client: docker.DockerClient, images: Images) -> None:
    labels = docker_client.images.get(images.fedbench).labels
    assert labels["org.opencontainers.image.version"] == __version__


def test_holds_the_hashed_files_compiled_and_nothing_of_the_host(
    docker_client: docker.DockerClient, images: Images
) -> None:
    files = output(docker_client, images.fedbench, "find", "/opt/fedbench", "-type", "f")
    sources = {path for path in files if not path.endswith(".pyc")}
    package = ROOT / "fedbench"
    assert sources == {
        f"/opt/fedbench/{path.relative_to(ROOT)}"
        for path in content(ROOT)
        if path.is_relative_to(package)
    }
    modules = {path for path in sources if path.endswith(".py")}
    assert len(files) - len(sources) == len(modules)


def test_has_no_way_to_docker(docker_client: docker.DockerClient, images: Images) -> None:
    script = "ls /var/run/docker.sock /run/docker.sock; command -v docker; true"
    assert output(docker_client, images.fedbench, "sh", "-c", f"({script}) 2>/dev/null") == []


def test_prometheus_has_the_official_paths_and_user(
    docker_client: docker.DockerClient, images: Images
) -> None:
    version = output(docker_client, images.prometheus, "promtool", "--version")
    assert version[0].startswith("promtool, version 2.53.3")
    config = docker_client.images.get(images.prometheus).attrs["Config"]
    assert config["Entrypoint"] == ["/bin/prometheus"]
    assert config["User"] == "nobody"
    assert list(config["Volumes"]) == ["/prometheus"]
    assert "--config.file=/etc/prometheus/prometheus.yml" in config["Cmd"]


def test_nothing_is_built_a_second_time(docker_containers: Containers, images: Images) -> None:
    said: list[str] = []
    assert bootstrap.ensure_images(docker_containers, said.append, root=ROOT) == images
    assert not [line for line in said if "building" in line or "making" in line]
