"""Flower's SuperLink as an ASGI application in this process."""

from __future__ import annotations

import sys

from fastapi import FastAPI
from flwr.supercore import date
from flwr.supercore.constant import NodeStatus
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, _parse_superlink_lifespan_config
from flwr.superlink.main import create_app
from flwr.superlink.routers.fleet import node_auth

from fedbench.flower import clock

MOST_NODES = 1000
"""That SuperLink knows, beside those that are there."""


def create(port: int) -> FastAPI:
    """Return SuperLink's application, to be served at `port` of this machine only.

    Its state stays in memory: a database file made a round 1.8 times as long. It starts no process
    for ServerApps (see `executor.py`).
    """
    keep_time()
    sys.argv = [
        "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port),
        "--disable-runtime-dependency-installation", "--isolation", "process",
    ]  # fmt: skip
    return create_app(_parse_superlink_lifespan_config(), SuperLinkLifespan)


def forget_nodes(superlink: FastAPI) -> None:
    """Let SuperLink forget nodes that are gone, the oldest first, where it knows too many.

    Each start of a client is a new node, and SuperLink keeps all of them for ever.
    """
    state = superlink.state.linkstate_factory.state()
    with state.lock:
        gone = [node for node in state.nodes.values() if node.status != NodeStatus.ONLINE]
        for node in gone[: max(0, len(state.nodes) - MOST_NODES)]:
            del state.nodes[node.node_id]
            state.node_public_key_to_node_id.pop(node.public_key, None)
            state.owner_to_node_ids[node.owner_aid].discard(node.node_id)


def keep_time() -> None:
    """Let SuperLink in this process, and who is forked off it, not mind when the clock is set."""
    clock.hold(date)
    vars(node_auth)["now"] = clock.EitherTime.present


def sign_off(superlink: FastAPI, node_id: int) -> None:
    """Sign off a node that died, as if it had said so: SuperLink answers in its place."""
    superlink.state.linkstate_factory.state().deactivate_node(node_id)


def knows(superlink: FastAPI, node_id: int) -> bool:
    """Tell whether a node is registered: one of an earlier SuperLink is not."""
    state = superlink.state.linkstate_factory.state()
    return bool(state.get_node_info(node_ids=[node_id]))
