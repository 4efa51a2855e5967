"""The running federation of this checkout: brought up from a plan, looked at, taken down."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from fedbench.config import Device, ModelName, Network, Profile
from fedbench.engines.containers.runtime import certificates
from fedbench.engines.containers.runtime.compose import Compose
from fedbench.engines.containers.runtime.containers import Container, Containers
from fedbench.errors import FedbenchError
from fedbench.host.plan.plan import ClientPlan, Plan
from fedbench.host.plan.project import Paths, compose_project, environment
from fedbench.host.setup.places import PROJECT, Places
from fedbench.learning.pace import Speed
from fedbench.records.clock import Dilation

CONTAINER_UID = 10001  # of the image's own user, where the host's user is root


def paths(places: Places) -> Paths:
    """Return what the compose project mounts."""
    return Paths(places.root, places.data, places.runs, places.state / "tls", container_user())


def container_user() -> str:
    """Return the user and group that containers write as: who runs fedbench, never root."""
    uid, gid = os.getuid(), os.getgid()
    return f"{uid}:{gid}" if uid else f"{CONTAINER_UID}:{CONTAINER_UID}"


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
        """Return the stack that was brought up last, or None."""
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
        """Write what `up` needs: compose project, certificates, folders to mount."""
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

    def services(self, containers: Containers) -> dict[str, Container]:
        """Return the project's containers by service, stopped ones included."""
        listed = containers.of_project(self.compose.name)
        return {container.service: container for container in listed}

    def published(self, containers: Containers) -> set[int]:
        """Return the ports of the host that its running containers hold."""
        listed = containers.of_project(self.compose.name)
        return {port for container in listed for port in container.ports}

    def down(self, *, volumes: bool = False) -> None:
        """Take the containers and networks down, and the recorded metrics too if asked."""
        if volumes:
            self.compose.purge()
        else:
            self.compose.down()
        (self.places.state / "stack.json").unlink()


def require(places: Places) -> Stack:
    """Return the running stack.

    Raises:
        FedbenchError: none was brought up.
    """
    stack = Stack.load(places)
    if stack is None:
        raise nothing_up()
    return stack


def nothing_up() -> FedbenchError:
    """Return the error of a command for which a federation has to be up."""
    return FedbenchError("no federation is up", "bring one up: make up PROFILE=heterogeneous")


def give_to_containers(*paths: Path) -> None:
    """Let the containers' user write there, where that user is not the host's."""
    if os.getuid() == 0:
        for path in paths:
            os.chown(path, CONTAINER_UID, CONTAINER_UID)
