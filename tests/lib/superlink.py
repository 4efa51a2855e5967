"""Flower's own server side, in this process, for the tests of both its sides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from flwr.app import Message
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.superlink.main import create_app

from fedbench.flower.bundle_server import Bundles
from fedbench.flower.longpoll import LongPoll
from fedbench.flower.messages import deflate, identify, inflate, object_ids

SUPERLINK_NODE = 1


class SuperLink:
    """Flower's own server side with one run, in memory; the ServerApp reaches it by HTTP."""

    def __init__(self) -> None:
        self.app = create_app()
        self._state = self.app.state.linkstate_factory.state()
        self.run_id = self._state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, None, TaskType.SERVER_APP
        )
        (run,) = self._state.get_run_info(run_ids=[self.run_id])
        self.token = self._state.claim_task(run.primary_task_id)
        self._state.activate_task(run.primary_task_id)
        identify(self.run_id, SUPERLINK_NODE, run.primary_task_id)
        self._run = run
        self._joined = 0

    @contextmanager
    def served(self, *, polled: bool = False, **options: Any) -> Iterator[str]:
        """Is at an address of its own for as long as the block lasts; polls may be held back."""
        app = LongPoll(Bundles(self.app)) if polled else Bundles(self.app)
        options |= {"log_level": "warning", "ws": "none", "lifespan": "off"}
        server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, **options))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.001)
        yield f"localhost:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join()

    @contextmanager
    def reached(self, *, polled: bool = False) -> Iterator[None]:
        """Has a grid, by HTTP as a ServerApp has it."""
        with self.served(polled=polled) as address:
            self.grid = HttpGrid(address, insecure=True, token=self.token)
            self.grid.set_run(self._run)
            yield
            self.grid.close()

    def finish(self) -> None:
        """Ends the run, as the host does when it is interrupted for good."""
        self._state.stop_run(self.run_id)

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

    def nodes(self) -> set[int]:
        found: set[int] = self._state.get_nodes(self.run_id)
        return found

    def believed_seconds(self, node_id: int) -> float:
        """For how long it still believes in a node that says nothing more."""
        until: float = self._state.nodes[node_id].online_until
        return until - time.time()

    def send(self, message: Message) -> bool:
        """Has a message for its node; whether it took it."""
        return self.announce(message)()

    def announce(self, message: Message) -> Callable[[], bool]:
        """Has a message without its objects, until what is returned is called."""
        (tree,), contents = deflate([message])
        session = self._state.start_session(self.run_id)
        stored, _ = self._state.store_message_and_object_tree(
            remove_content_from_message(message), tree, session
        )

        def arrive() -> bool:
            for object_id, content in contents.items():
                self._state.store_object(self.run_id, session, object_id, content)
            return bool(stored)

        return arrive

    def holds(self, message: Message) -> bool:
        return message.metadata.message_id in self._state.object_store

    def stored(self) -> set[str]:
        """The ids of all objects that it holds."""
        return set(self._state.object_store.store)

    def replied(self, message: Message) -> bool:
        return message.metadata.message_id in self._state.message_ins_id_to_message_res_id

    def reply_to(self, message_id: str) -> Message:
        """The reply that a node gave."""
        return self._inflate(self._state.message_ins_id_to_message_res_id[message_id])

    def answer(
        self, node_id: int, app: Callable[[Message], Message], *, uploads: bool = True
    ) -> None:
        """Lets a node answer its next message; without uploads it dies before its arrays came."""
        arrive = self.answer_slowly(node_id, app)
        if uploads:
            arrive()

    def answer_slowly(self, node_id: int, app: Callable[[Message], Message]) -> Callable[[], bool]:
        """Lets a node tell of its answer; its arrays come when what is returned is called."""
        return self.announce(app(self.take(node_id)))

    def take(self, node_id: int) -> Message:
        """The next message of a node, which now works on it."""
        (envelope,) = self._state.get_message_ins(node_id, limit=1)
        return self._inflate(envelope.metadata.message_id)

    def messages(self) -> int:
        """How many messages and replies it holds."""
        return len(self._state.message_ins_store) + len(self._state.message_res_store)

    def waiting(self, node_id: int) -> int:
        """Messages that the node has not taken yet."""
        return sum(
            message.metadata.dst_node_id == node_id and not message.metadata.delivered_at
            for message in self._state.message_ins_store.values()
        )

    def _inflate(self, message_id: str) -> Message:
        store = self._state.object_store
        tree = store.get_object_tree(message_id)
        contents = {object_id: store.get(object_id) for object_id in object_ids([tree])}
        return inflate(tree, contents).message
