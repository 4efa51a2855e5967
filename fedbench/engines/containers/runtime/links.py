"""The networks of a stack's clients: put in force once for each start of a container."""

from __future__ import annotations

import json
from collections.abc import Mapping

import docker
from docker.models.containers import Container

from fedbench.engines.containers.runtime import networks
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.records import replace_text


def enforce(stack: Stack, client: docker.DockerClient, found: Mapping[str, Container]) -> None:
    """Shapes the clients whose network is not in force yet; starts nothing where all are.

    A container that starts again has a new network: what was done to which is kept in a file.

    Raises:
        DockerError: the kernel refuses, or a container is not running.
    """
    file = stack.places.state / "links.json"
    done = json.loads(file.read_text()) if file.exists() else {}
    state = {name: _state(found[name], stack) for name in _concerned(stack, done) if name in found}
    links = {
        found[name]: stack.networks.get(name)
        for name, now in state.items()
        if done.get(name) != now
    }
    if links:
        networks.shape(client, stack.image, links)
        replace_text(file, json.dumps(done | state))


def _concerned(stack: Stack, done: Mapping[str, object]) -> list[str]:
    """Clients that have a network, or had one."""
    return [plan.name for plan in stack.clients if plan.name in stack.networks or plan.name in done]


def _state(container: Container, stack: Stack) -> list[object]:
    service = container.labels["com.docker.compose.service"]
    wanted = stack.networks.get(service)
    started = container.attrs["State"]["StartedAt"]
    return [container.id, started, wanted and wanted.model_dump()]
