"""A federation's profile: which computers, on which network and ports."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedbench.config.device import NetworkOrName
from fedbench.config.fields import Model, Name


class Machine(Model):
    """`count` computers of one device profile, each of which runs `clients` clients.

    `network` takes the place of the profile's and of the device's own; `gpu` is the index of the
    host's GPU that it gets.
    """

    device: Name
    count: Annotated[int, Field(ge=1)] = 1
    clients: Annotated[int, Field(ge=1)] = 1
    name: Name | None = None
    network: NetworkOrName | None = None
    gpu: Annotated[int, Field(ge=0)] | None = None


MOST_CLIENTS = 10_000
"""Of a federation: the plan of more takes minutes, and no host holds them."""


def _some(machines: tuple[Machine, ...]) -> tuple[Machine, ...]:
    if not machines:
        raise ValueError("expected at least one machine, such as `- device: laptop`")
    clients = sum(machine.count * machine.clients for machine in machines)
    if clients > MOST_CLIENTS:
        raise ValueError(f"expected at most {MOST_CLIENTS} clients in all, found {clients}")
    return machines


class Ports(Model):
    """Ports on the host. The server's is open to the LAN, the others to localhost only."""

    server: Annotated[int, Field(ge=1, le=65535)] = 9092
    prometheus: Annotated[int, Field(ge=1, le=65535)] = 9090
    grafana: Annotated[int, Field(ge=1, le=65535)] = 3000


class Profile(Model):
    """A federation: which machines, on which network and ports, and how they are emulated.

    `dilation` slows all of them by one factor; without it the smallest that fits the host is
    taken. `strict` refuses a host on which something cannot be emulated as it is. `gpu_stand_in`
    lets CPUs take the place of GPUs that the host lacks, at the GPU's speed.
    """

    name: Name
    description: str = ""
    machines: Annotated[tuple[Machine, ...], Field(strict=False), AfterValidator(_some)]
    network: NetworkOrName | None = None
    ports: Ports = Ports()
    dilation: Annotated[float, Field(ge=1, strict=False)] | None = None
    gpu_stand_in: bool = False
    strict: bool = False
    node: Literal["fedbench", "stock"] = "fedbench"
