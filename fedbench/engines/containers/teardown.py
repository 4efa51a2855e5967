"""Takes the federation down."""

from __future__ import annotations

from fedbench.engines.containers.runtime import daemon
from fedbench.engines.containers.runtime.stack import require
from fedbench.host.say import Say
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch import logs
from fedbench.records.runs import RunStore


def down(places: Places, say: Say, *, volumes: bool) -> None:
    """Remove containers and networks, and stop the Docker daemon if fedbench started it.

    What was logged until the last of them ended stays with its run.

    Raises:
        FedbenchError: nothing is up.
    """
    stack = require(places)
    containers = daemon.connect(say)
    stack.compose.stop()
    RunStore(places.runs).end(PROJECT)
    logs.keep_all(places, containers, say)
    for container in containers.joined(PROJECT):
        containers.remove(container, force=True)
    stack.down(volumes=volumes)
    if not containers.running():
        bootstrap.stop_daemon(say)
    say("the federation is down; runs are kept in runs/")
