from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import Message
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.proto.task_pb2 import Task
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.config_loader import get_objectstore_linkstate_factories
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.superlink.servicer.runtime import runtime_handlers

SUPERLINK_NODE = 1


class _RuntimeClient:
    """Hands a ServerApp's requests to SuperLink's handlers, where Flower's own takes HTTP."""

    def __init__(self, state: Any, task: Task) -> None:
        self._state = state
        self._task = task

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        handler = getattr(runtime_handlers, words.removeprefix("_"))
        return lambda request: handler(request, self._state, self._task)


class SuperLink:
    """Flower's own server side with one run, in memory and without HTTP."""

    def __init__(self) -> None:
        _, factory = get_objectstore_linkstate_factories(
            FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager()
        )
        self._state = factory.state()
        self.run_id = self._state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, None, TaskType.SERVER_APP
        )
        TaskIdentity.run_id, TaskIdentity.node_id = self.run_id, SUPERLINK_NODE
        TaskIdentity.task_id = 1
        self.grid = HttpGrid(token="none")
        self.grid.set_run(self._state.get_run_info(run_ids=[self.run_id])[0])
        self.grid._client = _RuntimeClient(self._state, Task(run_id=self.run_id))
        self._joined = 0

    def join(self, heartbeat_seconds: float = 30) -> int:
        """A new node; Flower believes in it for twice that time."""
        self._joined += 1
        key = f"public key {self._joined}".encode()
        node_id: int = self._state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0)
        self._state.activate_node(node_id, heartbeat_seconds)
        return node_id

    def sign_off(self, node_id: int) -> None:
        self._state.deactivate_node(node_id)
        self._state.delete_node(NOOP_FLWR_AID, node_id)

    def answer(
        self, node_id: int, app: Callable[[Message], Message], *, uploads: bool = True
    ) -> None:
        """Lets a node answer its next message; without uploads it dies before its arrays came."""
        (envelope,) = self._state.get_message_ins(node_id, limit=1)
        reply = app(self._inflate(envelope.metadata.message_id))
        reply.metadata.__dict__["_message_id"] = reply.object_id
        session = self._state.start_session(self.run_id)
        with no_object_id_recompute():
            objects = get_all_nested_objects(reply)
            stored, missing = self._state.store_message_and_object_tree(
                remove_content_from_message(reply), get_object_tree(reply), session
            )
            assert stored
            for object_id in missing if uploads else []:
                content = objects[object_id].deflate()
                self._state.store_object(self.run_id, session, object_id, content)

    def waiting(self, node_id: int) -> int:
        """Messages that the node has not taken yet."""
        return sum(
            message.metadata.dst_node_id == node_id and not message.metadata.delivered_at
            for message in self._state.message_ins_store.values()
        )

    def _inflate(self, message_id: str) -> Message:
        store = self._state.object_store
        tree = store.get_object_tree(message_id)
        contents = {node.object_id: store.get(node.object_id) for node in iterate_object_tree(tree)}
        message = inflate_object_from_contents(message_id, contents)
        assert isinstance(message, Message)
        message.metadata.__dict__["_message_id"] = message_id
        return message


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink()


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    """Messages are made in a process of a run; this one serves for all tests."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, SUPERLINK_NODE, 1
