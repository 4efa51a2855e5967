"""The networks of emulated devices: what of them this kernel can do, and putting it in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker
from docker.models.containers import Container

from fedbench.config import Network
from fedbench.engines.containers.runtime import helper
from fedbench.engines.containers.runtime.cgroup_parents import pid_of
from fedbench.errors import DockerError

# To enter another container's network (ptrace opens it, admin goes there) and to change it.
_RIGHTS = {
    "cap_add": ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"],
    "security_opt": ["apparmor=unconfined"],
}


@dataclass(frozen=True)
class Capabilities:
    """What Docker's kernel has: rates (tbf and htb), what arrives (ifb), delay and loss (netem)."""

    tbf: bool
    ifb: bool
    netem: bool


def dilated(network: Network, dilation: float) -> Network:
    """The network in wall seconds of a federation that is slowed by a factor."""
    return network.model_copy(
        update={
            "down": network.down and network.down / dilation,
            "up": network.up and network.up / dilation,
            "delay": network.delay * dilation,
            "jitter": network.jitter * dilation,
        }
    )


def probe(client: docker.DockerClient, image: str) -> Capabilities:
    """What the kernel can do; tried in a helper container, in about a second.

    Raises:
        DockerError: the helper cannot be run.
    """
    return Capabilities(**helper.run(client, image, {"probe": []}, **_RIGHTS))


def unapplied(network: Network, capabilities: Capabilities) -> list[str]:
    """What of a network this kernel cannot do, and why: `delay 10 ms is not applied: …`."""
    rates = [(f"{way} {rate / 1e6:g} Mbit/s", way) for way, rate in _rates(network).items()]
    notes = [
        f"{text} is not applied: this kernel has no {'ifb' if capabilities.tbf else 'tbf or htb'}"
        for text, way in rates
        if not capabilities.tbf or (way == "down" and not capabilities.ifb)
    ]
    impairments = _impairments(network)
    if impairments and not capabilities.netem:
        notes.append(f"{_listed(impairments)} not applied: this kernel has no netem")
    elif impairments and not capabilities.ifb:
        notes.append(f"{_listed(impairments)} not applied to what arrives: this kernel has no ifb")
    return notes


def shape(
    client: docker.DockerClient, image: str, links: Mapping[Container, Network | None]
) -> None:
    """Puts each container's network in force, in the place of what was; None is no limit.

    A restart of a container takes it off: `State.StartedAt` tells. What the kernel cannot do is
    left out.

    Raises:
        DockerError: a container is not running or has the host's network, or the kernel refuses.
    """
    order = [{"pid": _pid(container), **_fields(network)} for container, network in links.items()]
    if order:
        helper.run(client, image, {"shape": order}, **_RIGHTS)


def _pid(container: Container) -> int:
    pid = pid_of(container)
    if container.attrs["HostConfig"]["NetworkMode"] == "host":
        raise DockerError(f"{container.name} has the host's network, which is not shaped")
    return pid


def _fields(network: Network | None) -> dict[str, Any]:
    keys = {"down", "up", "delay", "jitter", "loss"}
    return network.model_dump(include=keys) if network else {}


def _rates(network: Network) -> dict[str, float]:
    return {way: rate for way in ("down", "up") if (rate := getattr(network, way))}


def _impairments(network: Network) -> list[str]:
    found = (
        (network.delay, f"delay {network.delay * 1e3:g} ms"),
        (network.jitter, f"jitter {network.jitter * 1e3:g} ms"),
        (network.loss, f"loss {network.loss * 100:g}%"),
    )
    return [text for value, text in found if value]


def _listed(parts: list[str]) -> str:
    return f"{', '.join(parts)} {'is' if len(parts) == 1 else 'are'}"
