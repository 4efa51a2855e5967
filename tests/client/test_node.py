from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message

from fedbench.client import node as node_module
from fedbench.client.node import App, Cancelled, Node
from fedbench.flower.fleet import Parcel, RunOverError, WithdrawnError
from fedbench.flower.messages import Deflated, deflate, inflate, object_ids

NODE_ID, RUN = 11, 7
WEIGHTS = np.arange(100_000, dtype=np.float32)


class FakeLink:
    """A connection: messages to come, and the replies that were sent."""

    node_id = NODE_ID

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._messages: list[Message] = []
        self._contents: dict[str, bytes] = {}
        self._replies: list[Deflated] = []
        self.known: list[int] = []
        self.over: set[int] = set()
        self.withdrawn: set[str] = set()

    def add(self, message: Message) -> Message:
        self._contents |= deflate([message]).contents
        self._messages.append(message)
        return message

    @contextmanager
    def connect(
        self, address: str, certificate: bytes, stop: threading.Event
    ) -> Iterator[FakeLink]:
        assert (address, certificate) == ("server:9092", b"certificate")
        yield self

    def poll(self, known: Collection[str]) -> Parcel | None:
        self.known.append(len(known))
        if not self._messages:
            self._stop.set()
            return None
        message = self._messages.pop(0)
        (tree,), _ = deflate([message])
        return Parcel(remove_content_from_message(message), tree, iter(()))

    def receive(self, parcel: Parcel, known: Collection[str]) -> dict[str, bytes]:
        self._require(parcel.envelope.metadata.run_id)
        wanted = object_ids([parcel.tree], without=known)
        return {object_id: self._contents[object_id] for object_id in wanted}

    def push(self, reply: Message, objects: Deflated) -> None:
        self._require(reply.metadata.run_id)
        self._replies.append(objects)

    def check(self, run: int, message_id: str) -> None:
        self._require(run)
        if message_id in self.withdrawn:
            raise WithdrawnError

    def replies(self) -> list[Message]:
        """What SuperLink makes of them."""
        return [inflate(reply.trees[0], reply.contents).message for reply in self._replies]

    def _require(self, run: int) -> None:
        if run in self.over:
            raise RunOverError


class Watcher:
    """Phases and bytes, as they are told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.timed_parts: list[str] = []
        self.errors = self.sent = self.received = 0
        self.models: list[str] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.phases.append(name)
        yield

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        self.timed_parts.append(part)
        yield

    def error(self) -> None:
        self.errors += 1

    def transferred(self, *, sent: int = 0, received: int = 0, model: bool = False) -> None:
        self.sent += sent
        self.received += received
        if model:
            self.models.append("sent" if sent else "received")


class Setting:
    """A node on a link."""

    def __init__(self) -> None:
        self.stop, self.cancelled = threading.Event(), threading.Event()
        self.link, self.watcher = FakeLink(self.stop), Watcher()
        self.ready: list[int] = []

    def serve(self, app: App) -> None:
        node = Node(app, {"client": "laptop-1"}, self.watcher, self.watcher, self.cancelled)
        node.serve("server:9092", b"certificate", self.ready.append, self.stop)


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    setting = Setting()
    monkeypatch.setattr(node_module, "connect", setting.link.connect)
    monkeypatch.setattr(node_module, "WATCH_SECONDS", 0.01)
    return setting


def message(number: int = 1, *, weights: np.ndarray = WEIGHTS) -> Message:
    arrays = ArrayRecord({"weights": Array(weights)})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"number": number})})
    return Message(content, NODE_ID, MessageType.TRAIN)


def doubled(message: Message, context: Context) -> Message:
    weights = message.content["arrays"]["weights"].numpy() * 2
    return Message(
        RecordDict({"arrays": ArrayRecord({"weights": Array(weights)})}), reply_to=message
    )


def test_a_message_comes_whole_and_so_does_its_reply(setting: Setting) -> None:
    sent = setting.link.add(message())

    setting.serve(doubled)

    (reply,) = setting.link.replies()
    assert np.array_equal(reply.content["arrays"]["weights"].numpy(), WEIGHTS * 2)
    assert reply.metadata.reply_to_message_id == sent.metadata.message_id
    assert reply.metadata.src_node_id == NODE_ID
    assert setting.ready == [NODE_ID]
    assert setting.watcher.phases == ["receiving", "sending"]
    assert setting.watcher.timed_parts == ["download", "serialise", "serialise", "upload"]


def test_bytes_are_counted_as_they_travel(setting: Setting) -> None:
    setting.link.add(message())

    setting.serve(doubled)

    assert 0 < setting.watcher.received - WEIGHTS.nbytes < 3000
    assert 0 < setting.watcher.sent - WEIGHTS.nbytes < 3000


def test_a_model_that_is_here_already_is_not_pulled_again(setting: Setting) -> None:
    for number in (1, 2):
        setting.link.add(message(number))
    setting.link.add(message(3, weights=WEIGHTS + 1))
    seen: list[float] = []

    def app(message: Message, context: Context) -> Message:
        seen.append(float(message.content["arrays"]["weights"].numpy()[0]))
        return doubled(message, context)

    setting.serve(app)

    assert seen == [0, 0, 1]
    assert setting.link.known == [0, 1, 1, 1], "one model is kept, not all that ever came"
    assert 0 < setting.watcher.received - 2 * WEIGHTS.nbytes < 9000


def test_an_exchange_of_a_model_is_told_from_one_without(setting: Setting) -> None:
    for number in (1, 2):
        setting.link.add(message(number))  # the second finds the model of the first

    def app(message: Message, context: Context) -> Message:
        if message.content["config"]["number"] == 1:
            return Message(RecordDict({"figures": ConfigRecord({"loss": 1.0})}), reply_to=message)
        return doubled(message, context)

    setting.serve(app)

    assert setting.watcher.models == ["received", "sent"]


def test_a_record_that_the_app_changed_comes_anew(setting: Setting) -> None:
    for number in (1, 2):
        setting.link.add(message(number))
    seen: list[list[str]] = []

    def app(message: Message, context: Context) -> Message:
        seen.append(sorted(message.content["arrays"]))
        message.content["arrays"]["more"] = Array(WEIGHTS)
        return doubled(message, context)

    setting.serve(app)

    assert seen == [["weights"], ["weights"]]


def test_an_exception_becomes_an_error_reply_and_the_node_goes_on(setting: Setting) -> None:
    for number in (1, 2):
        setting.link.add(message(number))

    def app(message: Message, context: Context) -> Message:
        if message.content["config"]["number"] == 1:
            raise ValueError("labels: expected 0 to 9")
        return doubled(message, context)

    setting.serve(app)

    first, second = setting.link.replies()
    assert first.error.reason == "ValueError: labels: expected 0 to 9"
    assert not second.has_error()
    assert setting.watcher.errors == 1


@pytest.mark.parametrize("moment", ["pulling", "working", "sending"])
def test_a_message_of_a_run_that_is_over_is_dropped(setting: Setting, moment: str) -> None:
    setting.link.add(message(1))
    if moment == "pulling":
        setting.link.over.add(RUN)

    def app(message: Message, context: Context) -> Message:
        setting.link.over.add(RUN)
        if moment == "working":
            assert setting.cancelled.wait(10)
            raise Cancelled
        return doubled(message, context)

    setting.serve(app)

    assert setting.link.replies() == []
    assert setting.watcher.errors == 0


def test_work_that_nobody_waits_for_any_more_is_cancelled_and_the_next_message_begun(
    setting: Setting,
) -> None:
    late, current = (setting.link.add(message(number)) for number in (1, 2))
    begun: list[int] = []

    def app(message: Message, context: Context) -> Message:
        begun.append(message.content["config"]["number"])
        if message.metadata.message_id == late.metadata.message_id:
            setting.link.withdrawn.add(late.metadata.message_id)
            assert setting.cancelled.wait(10)
            raise Cancelled
        return doubled(message, context)

    setting.serve(app)

    assert begun == [1, 2]
    (reply,) = setting.link.replies()
    assert reply.metadata.reply_to_message_id == current.metadata.message_id
    assert setting.watcher.errors == 0


def test_a_server_that_cannot_be_reached_for_a_while_cancels_nothing(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.link.add(message())
    asked = threading.Event()

    def unreachable(run: int, message_id: str) -> None:
        asked.set()
        raise ConnectionRefusedError

    monkeypatch.setattr(setting.link, "check", unreachable)

    def app(message: Message, context: Context) -> Message:
        assert asked.wait(10)
        assert not setting.cancelled.is_set()
        return doubled(message, context)

    setting.serve(app)

    assert len(setting.link.replies()) == 1


def test_a_new_message_finds_nothing_cancelled(setting: Setting) -> None:
    setting.cancelled.set()
    setting.link.add(message())
    found: list[bool] = []

    def app(message: Message, context: Context) -> Message:
        found.append(setting.cancelled.is_set())
        return doubled(message, context)

    setting.serve(app)

    assert found == [False]


def test_a_node_that_is_told_to_stop_does_not_finish_its_work(setting: Setting) -> None:
    for number in (1, 2):
        setting.link.add(message(number))
    calls: list[int] = []

    def app(message: Message, context: Context) -> Message:
        calls.append(1)
        setting.stop.set()
        assert setting.cancelled.wait(10)
        raise Cancelled

    setting.serve(app)

    assert calls == [1]
    assert setting.link.replies() == []


def test_a_context_lives_as_long_as_its_run(setting: Setting) -> None:
    contexts: list[Context] = []

    def app(message: Message, context: Context) -> Message:
        contexts.append(context)
        return doubled(message, context)

    for number in (1, 2):
        setting.link.add(message(number))
    other = message(3)
    other.metadata.__dict__["_run_id"] = RUN + 1
    setting.link.add(other)
    setting.serve(app)

    assert contexts[0] is contexts[1]
    assert contexts[2] is not contexts[0]
    assert [context.run_id for context in contexts] == [RUN, RUN, RUN + 1]
    assert contexts[0].node_id == NODE_ID
    assert contexts[0].node_config == {"client": "laptop-1"}
