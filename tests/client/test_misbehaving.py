"""What a client does wrong when it is told to: each kind is refused, and otherwise it is honest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict

from fedbench.client import faulty, misbehaving, worker
from fedbench.client import node as node_module
from fedbench.client.misbehaving import MisbehavingNode
from fedbench.client.node import Cancelled, Node
from fedbench.client.settings import Settings
from fedbench.flower.bundles import RefusedError
from fedbench.flower.messages import Deflated
from fedbench.flower.whole import NotWholeError, require_whole
from fedbench.records.rounds import TrainWork
from fedbench.server import replies
from fedbench.server.replies import Asked, FailedReplyError
from fedbench.wire import Misbehaviour, work_record

WEIGHTS = np.arange(100, dtype=np.float32)
SAMPLES = 40
WORK = TrainWork(samples=SAMPLES, epoch_seconds=[1.0], local_loss=0.5, local_accuracy=0.5)
SENT = ArrayRecord({"weights": Array(WEIGHTS)})
REFUSALS = {
    "nan": "1 of its model's 100 numbers are NaN or infinite",
    "wrong-shape": r"its model is float32 \[1\], expected float32 \[100\]",
    "wrong-dtype": r"its model is float64 \[100\], expected float32 \[100\]",
    "huge-header": "its array's header promises 34359738368 bytes, and 400 came",
    "too-many-samples": "samples: 40000, expected 1 to 40",
}


class Refusing:
    """A server that takes nothing that is not whole."""

    node_id = 3

    def __init__(self) -> None:
        self.pushed: list[Deflated] = []
        self.requests: list[tuple[str, str, bytes]] = []
        self._connection = self

    def push(self, reply: Message, objects: Deflated) -> None:
        try:
            require_whole(objects.trees[0], objects.contents)
        except (NotWholeError, KeyError) as error:
            raise RefusedError(400, str(error)) from None
        self.pushed.append(objects)

    def check_run(self, run: int) -> None:
        pass

    def _credentials(self) -> dict[str, str]:
        return {"key": "of this node"}

    def _connect(self) -> HTTPConnection:
        return Recorded(self.requests)


class Recorded(HTTPConnection):
    def __init__(self, requests: list[tuple[str, str, bytes]]) -> None:
        super().__init__("nowhere")
        self._requests = requests

    def request(
        self, method: str, url: str, body: Any = None, headers: Any = None, **_: Any
    ) -> None:
        assert headers["key"] == "of this node"
        self._requests.append((method, url, body))

    def getresponse(self) -> Any:
        class Answer:
            status = 400

            def read(self) -> bytes:
                return b"no bundle"

        return Answer()


class Silent:
    """Nobody counts anything."""

    @contextmanager
    def _nothing(self, _name: str) -> Any:
        yield

    phase = timed = _nothing

    def error(self) -> None:
        pass

    def transferred(self, **_: Any) -> None:
        pass


def message(kind: str = MessageType.TRAIN) -> Message:
    return Message(RecordDict({"arrays": SENT}), 3, kind)


def honest(asked: Message, context: Context) -> Message:
    if asked.metadata.message_type != MessageType.TRAIN:
        return Message(RecordDict({"said": ConfigRecord({"who": 1})}), reply_to=asked)
    content = {"arrays": ArrayRecord({"weights": Array(WEIGHTS + 1)})}
    work = ConfigRecord(work_record(WORK))
    return Message(RecordDict({**content, "work": work}), reply_to=asked)


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], MisbehavingNode]:
    """A node that was told to do this."""
    monkeypatch.setattr(MisbehavingNode, "told", tmp_path / "told")
    monkeypatch.setattr(MisbehavingNode, "said", tmp_path / "said")

    def told(word: str) -> MisbehavingNode:
        silent = Silent()
        node = MisbehavingNode(honest, {}, silent, silent, threading.Event())
        node._fleet = Refusing()
        if word:
            (tmp_path / "told").write_text(f"{word}\n")
        return node

    return told


def admitted(reply: Message) -> TrainWork:
    work = replies.admit("train", reply, Asked(SENT, 10, SAMPLES))
    assert isinstance(work, TrainWork)
    return work


def test_every_kind_is_tried() -> None:
    here = {*REFUSALS, "no-bundle", "incomplete-bundle", "raise", "late", "silent", "mute"}
    assert here == set(get_args(Misbehaviour))


def test_it_is_honest_until_it_is_told(tell: Any, tmp_path: Path) -> None:
    node = tell("")
    reply = node._call(message())
    node._send(reply)

    assert admitted(reply).model_dump() == WORK.model_dump()
    assert len(node._fleet.pushed) == 1
    assert not (tmp_path / "said").exists()


@pytest.mark.parametrize("wrong", REFUSALS)
def test_a_bad_update_is_refused_for_what_is_wrong(wrong: str, tell: Any, tmp_path: Path) -> None:
    node = tell(wrong)
    assert not node._call(message(MessageType.QUERY)).has_error()

    with pytest.raises(FailedReplyError, match=REFUSALS[wrong]):
        admitted(node._call(message()))
    assert float((tmp_path / "said").read_text()) > 0


def test_an_incomplete_bundle_is_sent_and_refused(
    tell: Any, caplog: pytest.LogCaptureFixture
) -> None:
    node = tell("incomplete-bundle")
    with caplog.at_level("INFO", "fedbench.faulty"):
        node._send(node._call(message()))

    assert node._fleet.pushed == []
    assert "refused: 400" in caplog.text


def test_what_is_no_bundle_is_sent_in_its_name(tell: Any) -> None:
    node = tell("no-bundle")
    node._send(node._call(message()))

    assert node._fleet.pushed == []
    assert node._fleet.requests == [("POST", misbehaving.FLEET_PUSH, b"this is no bundle")]


def test_an_exception_is_the_reply(tell: Any) -> None:
    reply = tell("raise")._call(message())

    assert reply.error.reason == "RuntimeError: told to fail"


@pytest.mark.parametrize(
    ("wrong", "kind"), [("silent", MessageType.TRAIN), ("mute", MessageType.QUERY)]
)
def test_a_silent_one_answers_all_but_one_kind(wrong: str, kind: str, tell: Any) -> None:
    node = tell(wrong)
    other = MessageType.QUERY if kind == MessageType.TRAIN else MessageType.TRAIN

    assert not node._call(message(other)).has_error()
    with pytest.raises(Cancelled):
        node._call(message(kind))


def test_a_late_one_gives_up_what_nobody_waits_for(tell: Any) -> None:
    node = tell("late 600")
    node._cancelled.set()

    with pytest.raises(Cancelled):
        node._call(message())


def test_a_late_one_is_honest_in_the_end(tell: Any) -> None:
    assert admitted(tell("late 0.05")._call(message())).samples == SAMPLES


def test_only_its_own_command_makes_a_client_faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that is started as `faulty` gets such a node; nothing else of the package does."""
    monkeypatch.setitem(vars(node_module), "Node", Node)  # put back at the end
    monkeypatch.setattr(worker, "work", lambda settings: 0 if node_module.Node is Node else 7)
    settings = Settings("a", "laptop", "server:9092")

    assert worker.work(settings) == 0
    assert faulty.work(settings) == 7
    assert node_module.Node is MisbehavingNode
    package = Path(misbehaving.__file__).parents[1]
    sources = {path.name: path.read_text() for path in package.rglob("*.py")}
    importing = [name for name, source in sources.items() if "client.misbehaving" in source]
    assert importing == ["faulty.py"]
