"""The running federation of this checkout: brought up from a plan, looked at, taken down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, Field

from fedbench.config import Device, ModelName, Network, Profile
from fedbench.engines.containers.runtime import certificates
from fedbench.engines.containers.runtime.compose import Compose
from fedbench.engines.containers.runtime.containers import FILES_LABEL, Container, Containers
from fedbench.errors import FedbenchError
from fedbench.host.plan.plan import ClientPlan, Plan
from fedbench.host.plan.project import Paths, compose_project, environment
from fedbench.host.setup.places import PROJECT, Places
from fedbench.learning.pace import Speed
from fedbench.records.clock import Dilation
from fedbench.records.files import Record, read_record, replace_text

FILE, COMPOSE_FILE = "stack.json", "compose.yaml"
CONTAINER_UID = 10001  # of the image's own user, where the host's user is root


def paths(places: Places) -> Paths:
    """Return what the compose project mounts."""
    return Paths(places.root, places.data, places.runs, places.state / "tls", container_user())


def container_user() -> str:
    """Return the user and group that containers write as: who runs fedbench, never root."""
    uid, gid = os.getuid(), os.getgid()
    return f"{uid}:{gid}" if uid else f"{CONTAINER_UID}:{CONTAINER_UID}"


def _with_image(variables: dict[str, str]) -> dict[str, str]:
    if missing := {"FEDBENCH_IMAGE", "COMPOSE_PROFILES"} - variables.keys():
        raise ValueError(f"no {min(missing)}")
    return variables


class _StackFile(Record):
    """What is kept of a stack: the fields of `Stack`, and the variables of its compose project."""

    profile: Profile
    devices: dict[str, Device]
    clients: tuple[ClientPlan, ...]
    dilation: Dilation
    model: str = ""
    speeds: dict[str, Speed] = Field(default_factory=dict)
    networks: dict[str, Network]
    cgroup_driver: str
    variables: Annotated[dict[str, str], AfterValidator(_with_image)]


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
        """Return the stack that was brought up last, or None.

        Raises:
            DamagedFileError: its file cannot be read.
        """
        file = places.state / FILE
        if not file.exists():
            return None
        saved = dict(read_record(file, _StackFile, "`make down` clears what is up all the same"))
        compose = Compose(PROJECT, places.state / COMPOSE_FILE, saved.pop("variables"))
        return cls(places=places, compose=compose, **saved)

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
        replace_text(places.state / COMPOSE_FILE, yaml.safe_dump(project, sort_keys=False))
        saved = _StackFile(
            profile=plan.profile,
            devices=dict(devices),
            clients=plan.clients,
            dilation=plan.dilation,
            model=plan.model,
            speeds=plan.speeds,
            networks=plan.networks,
            cgroup_driver=cgroup_driver,
            variables=environment(plan, mounted, images),
        )
        replace_text(places.state / FILE, saved.model_dump_json(indent=2))
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


def take_down(places: Places, compose: Compose, *, volumes: bool = False) -> None:
    """Take containers and networks down and forget them, the recorded metrics too if asked."""
    if volumes:
        compose.purge()
    else:
        compose.down()
    (places.state / FILE).unlink(missing_ok=True)


def left_behind(places: Places, containers: Containers) -> bool:
    """Tell whether there are containers that this checkout brought up, whatever it knows of them.

    Those of another checkout may have the same project's name.
    """
    file = str((places.state / COMPOSE_FILE).absolute())
    listed = containers.of_project(PROJECT)
    return any(file in each.labels.get(FILES_LABEL, "").split(",") for each in listed)


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
