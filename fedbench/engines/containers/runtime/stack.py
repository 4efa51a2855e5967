"""The running federation of this checkout: brought up from a plan, looked at, taken down."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import docker
import yaml
from docker.models.containers import Container

from fedbench.config import Device, ModelName, Network, Profile
from fedbench.engines.containers.runtime import certificates
from fedbench.engines.containers.runtime.compose import Compose
from fedbench.errors import FedbenchError
from fedbench.host.plan.plan import ClientPlan, HostFacts, Plan
from fedbench.host.plan.project import Paths, compose_project, environment
from fedbench.host.setup.places import PROJECT, Places
from fedbench.learning.pace import Speed
from fedbench.records.clock import Dilation

CONTAINER_UID = 10001  # of the image's own user, where the host's user is root
JOINED_LABEL = "fedbench.joined"
"""Of a container that joined from outside the compose project."""


def paths(places: Places) -> Paths:
    """What the compose project mounts."""
    return Paths(places.root, places.data, places.runs, places.state / "tls", container_user())


def container_user() -> str:
    """Containers write as the user who runs fedbench; never as root."""
    uid, gid = os.getuid(), os.getgid()
    return f"{uid}:{gid}" if uid else f"{CONTAINER_UID}:{CONTAINER_UID}"


def host_facts(client: docker.DockerClient) -> HostFacts:
    """What Docker's machine has; on a desktop that is Docker's virtual machine."""
    info = client.info()
    gpus = 0
    if "nvidia" in info.get("Runtimes", {}):
        gpus = sum(1 for path in Path("/dev").glob("nvidia[0-9]*"))
    return HostFacts(int(info["NCPU"]), int(info["MemTotal"]), gpus, info["CgroupDriver"])


@dataclass(frozen=True)
class Stack:
    """A federation that was brought up: its plan's clients, its ports, its compose project."""

    places: Places
    profile: Profile
    devices: dict[str, Device]
    clients: tuple[ClientPlan, ...]
    dilation: Dilation
    model: ModelName
    """What its plan was made for."""
    speeds: dict[str, Speed]
    """What each device trains of that model, in samples per emulated second."""
    networks: dict[str, Network]
    cgroup_driver: str
    compose: Compose

    @classmethod
    def load(cls, places: Places) -> Stack | None:
        """The stack that was brought up last, or None."""
        file = places.state / "stack.json"
        if not file.exists():
            return None
        saved = json.loads(file.read_text())
        return cls(
            places,
            Profile.model_validate_json(json.dumps(saved["profile"])),
            {name: Device.model_validate(device) for name, device in saved["devices"].items()},
            tuple(ClientPlan(**client) for client in saved["clients"]),
            Dilation(saved["dilation"]),
            saved.get("model", ""),
            {device: Speed(*speed) for device, speed in saved.get("speeds", {}).items()},
            {name: Network.model_validate(link) for name, link in saved["networks"].items()},
            saved["cgroup_driver"],
            Compose(PROJECT, places.state / "compose.yaml", saved["variables"]),
        )

    @classmethod
    def write(
        cls,
        places: Places,
        plan: Plan,
        devices: Mapping[str, Device],
        images: Mapping[str, str | None],
        cgroup_driver: str = "cgroupfs",
    ) -> Stack:
        """Writes what `up` needs: compose project, certificates, folders to mount."""
        mounted = paths(places)
        certificates.ensure(mounted.tls)
        for folder in (mounted.runs, *(mounted.data / client.name for client in plan.clients)):
            folder.mkdir(parents=True, exist_ok=True)
        give_to_containers(
            mounted.runs, mounted.tls / "server", *(mounted.tls / "server").iterdir()
        )
        project = compose_project(plan, mounted, PROJECT, cgroup_driver)
        (places.state / "compose.yaml").write_text(yaml.safe_dump(project, sort_keys=False))
        saved = {
            "profile": plan.profile.model_dump(mode="json"),
            "devices": {name: d.model_dump(mode="json") for name, d in devices.items()},
            "clients": [asdict(client) for client in plan.clients],
            "dilation": plan.dilation,
            "model": plan.model,
            "speeds": plan.speeds,
            "networks": {
                name: link.model_dump(include=set(Network.model_fields))
                for name, link in plan.networks.items()
            },
            "cgroup_driver": cgroup_driver,
            "variables": environment(plan, mounted, images),
        }
        (places.state / "stack.json").write_text(json.dumps(saved, indent=2))
        stack = cls.load(places)
        assert stack is not None  # noqa: S101 (written above)
        return stack

    @property
    def image(self) -> str:
        """The image of server and clients."""
        return self.compose.variables["FEDBENCH_IMAGE"]

    @property
    def prometheus_url(self) -> str:
        """Prometheus, on this host only."""
        return f"http://127.0.0.1:{self.profile.ports.prometheus}"

    @property
    def grafana_url(self) -> str | None:
        """Grafana, where its image could be had."""
        with_grafana = self.compose.variables["COMPOSE_PROFILES"] == "grafana"
        return f"http://127.0.0.1:{self.profile.ports.grafana}" if with_grafana else None

    def containers(self, client: docker.DockerClient) -> dict[str, Container]:
        """The project's containers by service, stopped ones included."""
        label = f"com.docker.compose.project={self.compose.name}"
        found = client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        return {c.labels["com.docker.compose.service"]: c for c in found}

    def published(self, client: docker.DockerClient) -> set[int]:
        """Ports of the host that its running containers hold."""
        found = self.containers(client).values()
        bindings = [b for c in found for b in c.attrs["NetworkSettings"]["Ports"].values() if b]
        return {int(binding["HostPort"]) for several in bindings for binding in several}

    def down(self, *, volumes: bool = False) -> None:
        """Takes the containers and networks down, and the recorded metrics too if asked."""
        if volumes:
            self.compose.purge()
        else:
            self.compose.down()
        (self.places.state / "stack.json").unlink()


def require(places: Places) -> Stack:
    """The running stack.

    Raises:
        FedbenchError: none was brought up.
    """
    stack = Stack.load(places)
    if stack is None:
        raise nothing_up()
    return stack


def nothing_up() -> FedbenchError:
    """What is said where a federation has to be up, and none is."""
    return FedbenchError("no federation is up", "bring one up: make up PROFILE=heterogeneous")


def give_to_containers(*paths: Path) -> None:
    """Lets the containers' user write there, where that user is not the host's."""
    if os.getuid() == 0:
        for path in paths:
            os.chown(path, CONTAINER_UID, CONTAINER_UID)
