"""Flower's SuperLink as an ASGI application in this process."""

from __future__ import annotations

import sys

from fastapi import FastAPI
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, _parse_superlink_lifespan_config
from flwr.superlink.main import create_app


def create(port: int) -> FastAPI:
    """Return SuperLink's application, to be served at `port` of this machine only.

    Its state stays in memory: a database file made a round 1.8 times as long. It starts no process
    for ServerApps (see `executor.py`).
    """
    sys.argv = [
        "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port),
        "--disable-runtime-dependency-installation", "--isolation", "process",
    ]  # fmt: skip
    return create_app(_parse_superlink_lifespan_config(), SuperLinkLifespan)


def sign_off(superlink: FastAPI, node_id: int) -> None:
    """Sign off a node that died, as if it had said so: SuperLink answers in its place."""
    superlink.state.linkstate_factory.state().deactivate_node(node_id)


def knows(superlink: FastAPI, node_id: int) -> bool:
    """Tell whether a node is registered: one of an earlier SuperLink is not."""
    state = superlink.state.linkstate_factory.state()
    return bool(state.get_node_info(node_ids=[node_id]))
