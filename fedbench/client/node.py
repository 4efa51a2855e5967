"""The long-lived node: one process that pulls messages and runs the ClientApp in it.

Flower's own SuperNode starts a process per message, which imports torch each time, and sleeps 3 s
between polls. This one speaks the same Fleet API through Flower's own connection (internal to
Flower: pinned, and guarded by a contract test), never runs code that the server sent, and keeps
the objects of the last message, so that a model it has already is not sent again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, cast

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_connection import http_request_response

from fedbench.telemetry.collectors import ClientPhase

POLL_SECONDS = 0.1  # the server holds back its answer while there is no message
WATCH_SECONDS = 2.0
SERVER_GONE_SECONDS = 120.0  # then the connection counts as lost
# A message is announced before its arrays are uploaded; Flower would wait a second.
_OBJECT_BACKOFF_SECONDS = 0.05

log = logging.getLogger("fedbench.node")

App = Callable[[Message, Context], Message]


class Cancelled(Exception):  # noqa: N818 (the server's decision, not an error)
    """The run ended while this client was working for it."""


class Phases(Protocol):
    """Is told what the node is doing."""

    def phase(self, name: ClientPhase) -> AbstractContextManager[None]:
        """Is in the phase for as long as the block lasts."""

    def error(self) -> None:
        """Counts a message that was answered with an error."""


class Wire(Protocol):
    """Is told payload bytes."""

    def transferred(self, *, sent: int = 0, received: int = 0) -> None:
        """Counts bytes that were exchanged."""


class Node:
    """Serves one connection. `app` may poll `cancelled` and raise `Cancelled`."""

    def __init__(
        self,
        app: App,
        config: dict[str, str],
        phases: Phases,
        wire: Wire,
        cancelled: threading.Event,
    ) -> None:
        self._app = app
        self._config = config
        self._phases = phases
        self._wire = wire
        self._cancelled = cancelled
        self._contexts: dict[int, Context] = {}
        self._objects: dict[str, bytes] = {}

    def serve(
        self, address: str, certificate: bytes, ready: Callable[[int], None], stop: threading.Event
    ) -> None:
        """Connects, calls `ready` with the node id, and works until `stop` is set.

        Returns early when the connection is lost for good; the container's restart policy
        brings the client back.
        """
        with http_request_response(
            address,
            insecure=False,
            root_certificates=certificate,
            max_wait_time=SERVER_GONE_SECONDS,
        ) as link:
            self._link(*link)
            self._stop = stop
            ready(self._node_id)
            while not stop.is_set():
                if not self._step():
                    stop.wait(POLL_SECONDS)

    def _link(
        self, node_id: int, receive: Any, send: Any, get_run: Any, _fab: Any, pull: Any, push: Any,
        confirm: Any,
    ) -> None:  # fmt: skip
        self._node_id = node_id
        self._receive, self._send, self._get_run = receive, send, get_run
        self._pull, self._push, self._confirm = pull, push, confirm

    def _step(self) -> bool:
        """Handles one message; False when there was none."""
        if (received := self._receive()) is None:
            return False
        envelope, tree = cast("tuple[Message, ObjectTree]", received)
        run = envelope.metadata.run_id
        log.info("run %s: %s message", run, envelope.metadata.message_type)
        try:
            with self._phases.phase("receiving"):
                message = self._inflate(run, envelope.metadata.message_id, tree)
            with self._watch(run):
                reply = self._call(message)
            with self._phases.phase("sending"):
                self._deliver(run, reply)
        except (RunNotRunningException, Cancelled):
            log.info("run %s: message dropped, the run or this node is stopping", run)
        return True

    def _inflate(self, run: int, message_id: str, tree: ObjectTree) -> Message:
        wanted = [node.object_id for node in iterate_object_tree(tree)]
        missing = [object_id for object_id in wanted if object_id not in self._objects]
        pulled = pull_objects(
            missing,
            lambda object_id: self._pull(run, object_id),
            initial_backoff=_OBJECT_BACKOFF_SECONDS,
            backoff_cap=0.5,
        )
        self._confirm(run, message_id)
        self._wire.transferred(received=sum(map(len, pulled.values())))
        self._objects = {i: pulled[i] if i in pulled else self._objects[i] for i in wanted}
        message = inflate_object_from_contents(message_id, dict(self._objects))
        message.metadata.__dict__["_message_id"] = message_id
        return cast("Message", message)

    def _call(self, message: Message) -> Message:
        run = message.metadata.run_id
        context = self._contexts.get(run) or Context(
            run_id=run,
            node_id=self._node_id,
            node_config=dict(self._config),
            state=RecordDict(),
            run_config={},
        )
        self._contexts = {run: context}  # of the current run only: a node lives for weeks
        try:
            return self._app(message, context)
        except Cancelled:
            raise
        except Exception as error:  # whatever a user's model raises becomes an error reply
            log.exception("the ClientApp raised an exception")
            self._phases.error()
            reason = f"{type(error).__name__}: {error}"
            return Message(
                Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message
            )

    def _deliver(self, run: int, reply: Message) -> None:
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            tree = get_object_tree(reply)
            objects = get_all_nested_objects(reply)
            missing, session = self._send(reply, tree, 0.0)
            contents = {object_id: objects[object_id].deflate() for object_id in missing}
        push_object_contents_from_iterable(
            contents.items(),
            lambda object_id, content: self._push(run, session, object_id, content),
        )
        self._wire.transferred(sent=sum(map(len, contents.values())))

    @contextmanager
    def _watch(self, run: int) -> Iterator[None]:
        """Sets `cancelled` when the run ends, or the node has to, amid the work on a message."""
        finished = threading.Event()
        self._cancelled.clear()

        def watch() -> None:
            while not finished.wait(WATCH_SECONDS):
                if self._stop.is_set():
                    self._cancelled.set()
                    return
                try:
                    self._get_run(run)
                except RunNotRunningException:
                    self._cancelled.set()
                    return

        watcher = threading.Thread(target=watch, name="watch-run", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
