"""Takes the federation down."""

from __future__ import annotations

from contextlib import suppress

from docker.errors import NotFound

from fedbench.engines.containers.runtime.stack import JOINED_LABEL, require
from fedbench.host.setup import bootstrap
from fedbench.host.setup.machine import Say
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch import logs
from fedbench.records.runs import RunStore


def down(places: Places, say: Say, *, volumes: bool) -> None:
    """Removes containers and networks, and stops the Docker daemon if fedbench started it.

    What was logged until the last of them ended stays with its run.

    Raises:
        FedbenchError: nothing is up.
    """
    stack = require(places)
    client = bootstrap.ensure_docker(say)
    stack.compose.stop()
    RunStore(places.runs).end(PROJECT)
    logs.keep_all(places, client, say)
    joined = f"{JOINED_LABEL}={PROJECT}"
    for container in client.containers.list(
        all=True, filters={"label": joined}, ignore_removed=True
    ):
        with suppress(NotFound):  # another removed it
            container.remove(force=True)
    stack.down(volumes=volumes)
    if not client.containers.list(ignore_removed=True):
        bootstrap.stop_daemon(say)
    say("the federation is down; runs are kept in runs/")
