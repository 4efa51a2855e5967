"""The long-lived node: one process that pulls messages and runs the ClientApp in it.

Flower's own SuperNode starts a process per message, which imports torch each time, and sleeps 3 s
between polls. This one speaks to the same Fleet API, never runs code that the server sent, and
keeps the arrays of the last message, so that a model that it has already is not sent again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http.client import HTTPException
from typing import Literal, Protocol, get_args

from flwr.app import Array, Context, Message, RecordDict

from fedbench.flower import messages
from fedbench.flower.fleet import NotWantedError, Parcel, RunOverError, connect
from fedbench.telemetry import logs
from fedbench.telemetry.work import ClientPhase
from fedbench.wire import TASK

POLL_SECONDS = 0.1  # the server holds back its answer while there is no message
WATCH_SECONDS = 2.0

log = logging.getLogger("fedbench.node")

App = Callable[[Message, Context], Message]
WirePart = Literal["download", "upload", "serialise"]
WIRE_PARTS: tuple[WirePart, ...] = get_args(WirePart)


class Cancelled(Exception):  # noqa: N818 (the server's decision, not an error)
    """The run ended, or the round was closed, while this client was working for it."""


class Phases(Protocol):
    """Is told what the node is doing."""

    def phase(self, name: ClientPhase) -> AbstractContextManager[None]:
        """Be in the phase while the block lasts."""

    def error(self) -> None:
        """Count a message that was answered with an error."""


class TransferCounter(Protocol):
    """Is told payload bytes, and what takes how long."""

    def timed(self, part: WirePart) -> AbstractContextManager[None]:
        """Count the seconds of the block."""

    def transferred(self, *, sent: int = 0, received: int = 0, model: bool = False) -> None:
        """Count bytes that were exchanged, with the arrays of a `model` among them or without."""


def task_of(message: Message) -> dict[str, object]:
    """Return the run and the round of a message, for the log; None where it has none."""
    task = message.content.get(TASK, {})
    return {"run": task.get("run"), "round": task.get("round")}


class Node:
    """Serves one connection. `app` may poll `cancelled` and raise `Cancelled`."""

    def __init__(
        self,
        app: App,
        config: dict[str, str],
        phases: Phases,
        transfers: TransferCounter,
        cancelled: threading.Event,
    ) -> None:
        self._app = app
        self._config = config
        self._phases = phases
        self._transfers = transfers
        self._cancelled = cancelled
        self._contexts: dict[int, Context] = {}
        self._arrays: dict[str, Array] = {}  # of the last message

    def serve(
        self, address: str, certificate: bytes, ready: Callable[[int], None], stop: threading.Event
    ) -> None:
        """Connect, call `ready` with the node id, and work until `stop` is set.

        Returns early when the connection is lost for good; the container's restart policy
        brings the client back.
        """
        with connect(address, certificate, stop) as self._fleet:
            self._stop = stop
            ready(self._fleet.node_id)
            while not stop.is_set():
                if not self._step():
                    stop.wait(POLL_SECONDS)

    def _step(self) -> bool:
        """Handle one message; return False if there was none."""
        if (parcel := self._fleet.poll(self._arrays)) is None:
            return False
        try:
            with self._phases.phase("receiving"):
                message = self._receive(parcel)
            with logs.about(**task_of(message)):
                self._answer(message)
        except NotWantedError as error:
            log.info("message dropped before it was here: %s", _why(error))
        return True

    def _answer(self, message: Message) -> None:
        # By its number Flower's own lines can be told from those of other runs.
        about = message.metadata
        log.info("%s message (Flower's run %s)", about.message_type, about.run_id)
        try:
            with self._watch(about.run_id, about.message_id):
                reply = self._call(message)
            with self._phases.phase("sending"):
                self._send(reply)
        except (NotWantedError, Cancelled):
            log.info("message dropped: its round or its run is over, or this node is stopping")

    def _receive(self, parcel: Parcel) -> Message:
        with self._transfers.timed("download"):
            contents = self._fleet.receive(parcel, self._arrays)
        # A model that is here already stays behind: then this was no transfer of a model.
        self._transfers.transferred(
            received=sum(map(len, contents.values())),
            model=messages.carry_arrays(contents.values()),
        )
        with self._transfers.timed("serialise"):
            inflated = messages.inflate(parcel.tree, contents, self._arrays)
        self._arrays = inflated.arrays  # only: a ClientApp may change the records that hold them
        return inflated.message

    def _call(self, message: Message) -> Message:
        run = message.metadata.run_id
        context = self._contexts.get(run) or Context(
            run_id=run,
            node_id=self._fleet.node_id,
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
            return messages.app_error(message, f"{type(error).__name__}: {error}")

    def _send(self, reply: Message) -> None:
        with self._transfers.timed("serialise"):
            objects = messages.deflate([reply])
        with self._transfers.timed("upload"):
            self._fleet.push(reply, objects)
        contents = objects.contents.values()
        self._transfers.transferred(
            sent=sum(map(len, contents)), model=messages.carry_arrays(contents)
        )

    @contextmanager
    def _watch(self, run: int, message_id: str) -> Iterator[None]:
        """Set `cancelled` when nobody wants the answer any more, or the node has to end."""
        finished = threading.Event()
        self._cancelled.clear()

        def watch() -> None:
            while not finished.wait(WATCH_SECONDS):
                if self._stop.is_set():
                    self._cancelled.set()
                    return
                try:
                    # A server that cannot be reached is asked again.
                    with suppress(OSError, HTTPException):
                        self._fleet.check(run, message_id)
                except NotWantedError:
                    self._cancelled.set()
                    return

        watcher = threading.Thread(target=watch, name="watch-message", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()


def _why(error: NotWantedError) -> str:
    return "its run has ended" if isinstance(error, RunOverError) else "its round is closed"
