"""The networks of a stack's clients: put in force once for each start of a container."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedbench.engines.containers.runtime import networks
from fedbench.engines.containers.runtime.containers import Container, Containers
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import DamagedFileError
from fedbench.records.files import read_object, replace_text


def enforce(stack: Stack, containers: Containers) -> None:
    """Shape the clients whose network is not in force yet; starts nothing where all are.

    A container that starts again has a new network: what was done to which is kept in a file.

    Raises:
        DockerError: the kernel refuses, or a container is not running.
    """
    file = stack.places.state / "links.json"
    done = _done(file)
    if not (concerned := _concerned(stack, done)):
        return
    services = stack.services(containers)
    there = [name for name in concerned if name in services]
    states = {name: _state(services[name], stack) for name in there}
    changed = [name for name in there if done.get(name) != states[name]]
    if changed:
        pairs = [(services[name], stack.networks.get(name)) for name in changed]
        networks.shape(containers, stack.image, pairs)
        replace_text(file, json.dumps(done | states))


def _done(file: Path) -> dict[str, Any]:
    """Return what was done to which container; where nobody knows, it is done again."""
    with suppress(DamagedFileError):
        return read_object(file)
    return {}


def _concerned(stack: Stack, done: Mapping[str, object]) -> list[str]:
    """Name the clients that have a network, or had one."""
    return [plan.name for plan in stack.clients if plan.name in stack.networks or plan.name in done]


def _state(container: Container, stack: Stack) -> list[object]:
    network = stack.networks.get(container.service)
    return [container.id, container.started_at, network and network.model_dump()]
