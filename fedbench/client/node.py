"""The long-lived node: one process that pulls messages and runs the ClientApp in it.

Flower's own SuperNode starts a process per message, which imports torch each time, and sleeps 3 s
between polls. This one speaks to the same Fleet API (see link.py), never runs code that the server
sent, and keeps the arrays of the last message, so that a model it has already is not sent again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol, cast, get_args

from flwr.app import Array, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import InflatableObject
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import RunNotRunningException

from fedbench.flower import bundles
from fedbench.flower.link import Parcel, connect
from fedbench.telemetry import logs
from fedbench.telemetry.work import ClientPhase

POLL_SECONDS = 0.1  # the server holds back its answer while there is no message
WATCH_SECONDS = 2.0

log = logging.getLogger("fedbench.node")

App = Callable[[Message, Context], Message]
WirePart = Literal["download", "upload", "serialise"]
WIRE_PARTS: tuple[WirePart, ...] = get_args(WirePart)


class Cancelled(Exception):  # noqa: N818 (the server's decision, not an error)
    """The run ended while this client was working for it."""


class Phases(Protocol):
    """Is told what the node is doing."""

    def phase(self, name: ClientPhase) -> AbstractContextManager[None]:
        """Is in the phase for as long as the block lasts."""

    def error(self) -> None:
        """Counts a message that was answered with an error."""


class Wire(Protocol):
    """Is told payload bytes, and what takes how long."""

    def timed(self, part: WirePart) -> AbstractContextManager[None]:
        """Counts the seconds of the block."""

    def transferred(self, *, sent: int = 0, received: int = 0, model: bool = False) -> None:
        """Counts bytes that were exchanged, with the arrays of a `model` among them or without."""


def task_of(message: Message) -> dict[str, object]:
    """The run and the round that a message belongs to, for the log; None where it has none."""
    config = message.content.get("config", {})
    return {"run": config.get("run"), "round": config.get("server-round")}


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
        self._arrays: dict[str, InflatableObject] = {}  # of the last message

    def serve(
        self, address: str, certificate: bytes, ready: Callable[[int], None], stop: threading.Event
    ) -> None:
        """Connects, calls `ready` with the node id, and works until `stop` is set.

        Returns early when the connection is lost for good; the container's restart policy
        brings the client back.
        """
        with connect(address, certificate) as self._link:
            self._stop = stop
            ready(self._link.node_id)
            while not stop.is_set():
                if not self._step():
                    stop.wait(POLL_SECONDS)

    def _step(self) -> bool:
        """Handles one message; False when there was none."""
        if (parcel := self._link.poll(self._arrays)) is None:
            return False
        try:
            with self._phases.phase("receiving"):
                message = self._receive(parcel)
            with logs.about(**task_of(message)):
                self._answer(message)
        except RunNotRunningException:
            log.info("message dropped before it was here: its run has ended")
        return True

    def _answer(self, message: Message) -> None:
        # By its number Flower's own lines can be told from those of other runs.
        about = message.metadata
        log.info("%s message (Flower's run %s)", about.message_type, about.run_id)
        try:
            with self._watch(message.metadata.run_id):
                reply = self._call(message)
            with self._phases.phase("sending"):
                self._send(reply)
        except (RunNotRunningException, Cancelled):
            log.info("message dropped, the run or this node is stopping")

    def _receive(self, parcel: Parcel) -> Message:
        with self._wire.timed("download"):
            contents = self._link.receive(parcel, self._arrays)
        # A model that is here already stays behind: then this was no transfer of a model.
        self._wire.transferred(
            received=sum(map(len, contents.values())), model=bundles.carry_arrays(contents.values())
        )
        message_id = parcel.envelope.metadata.message_id
        objects = dict(self._arrays)
        with self._wire.timed("serialise"):
            message = inflate_object_from_contents(message_id, contents, objects=objects)
        message.metadata.__dict__["_message_id"] = message_id
        # Arrays only: a ClientApp may change the records that hold them.
        mine = bundles.object_ids([parcel.tree])
        self._arrays = {i: objects[i] for i in mine if isinstance(objects.get(i), Array)}
        return cast("Message", message)

    def _call(self, message: Message) -> Message:
        run = message.metadata.run_id
        context = self._contexts.get(run) or Context(
            run_id=run,
            node_id=self._link.node_id,
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

    def _send(self, reply: Message) -> None:
        with self._wire.timed("serialise"):
            objects = bundles.deflate([reply])
        with self._wire.timed("upload"):
            self._link.push(reply, objects)
        contents = objects.contents.values()
        self._wire.transferred(sent=sum(map(len, contents)), model=bundles.carry_arrays(contents))

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
                    self._link.get_run(run)
                except RunNotRunningException:
                    self._cancelled.set()
                    return

        watcher = threading.Thread(target=watch, name="watch-run", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
