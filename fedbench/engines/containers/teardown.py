"""Takes the federation down."""

from __future__ import annotations

from fedbench.engines.containers.runtime import daemon
from fedbench.engines.containers.runtime.compose import Compose
from fedbench.engines.containers.runtime.stack import (
    Stack,
    left_behind,
    nothing_up,
    take_down,
)
from fedbench.errors import DamagedFileError, DockerError
from fedbench.host.say import Say
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch import logs
from fedbench.records.runs import RunStore

BY_LABEL = Compose(PROJECT, None)
"""The project as Docker's labels have it: its files are not needed to take it down."""


def down(places: Places, say: Say, *, volumes: bool) -> None:
    """Remove containers and networks, and stop the Docker daemon if fedbench started it.

    What was logged until the last of them ended stays with its run. Files that are damaged keep
    nothing up: Docker's own labels say what is the federation's.

    Raises:
        FedbenchError: nothing is up.
        DockerError: Docker does not answer.
    """
    compose = _project(places, say)
    containers = daemon.connect(say)
    compose = _stopped(compose, say)
    RunStore(places.runs).end(PROJECT)
    logs.keep_all(places, containers, say)
    for container in containers.joined(PROJECT):
        containers.remove(container, force=True)
    take_down(places, compose, volumes=volumes)
    if not containers.running():
        bootstrap.stop_daemon(say)
    say("the federation is down; runs are kept in runs/")


def _project(places: Places, say: Say) -> Compose:
    """Return the project that is up, as far as anybody knows of it."""
    try:
        stack = Stack.load(places)
    except DamagedFileError as error:
        say(f"note: {error.message}")
        return BY_LABEL
    if stack:
        return stack.compose
    containers = daemon.find()
    if containers is None or not left_behind(places, containers):
        raise nothing_up()
    return BY_LABEL


def _stopped(compose: Compose, say: Say) -> Compose:
    """Stop what runs, and return the project that could be stopped."""
    try:
        compose.stop()
    except DockerError as error:
        if compose == BY_LABEL:
            raise
        say(f"note: {error.message}")
        BY_LABEL.stop()
        return BY_LABEL
    return compose
