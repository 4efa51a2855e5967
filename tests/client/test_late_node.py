"""A node that is late, with Flower's own server side at its other end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from superlink import SuperLink

from fedbench.client import node as node_module
from fedbench.client.node import App, Cancelled, Node
from fedbench.server.grid import PromptGrid

LONG = 60.0


class Nobody:
    """Is told what a node does, and keeps nothing of it."""

    def phase(self, name: str) -> Any:
        return nullcontext()

    def timed(self, part: str) -> Any:
        return nullcontext()

    def error(self) -> None:
        pass

    def transferred(self, **_: Any) -> None:
        pass


@contextmanager
def serving(
    app: App, address: str, certificate: bytes, cancelled: threading.Event
) -> Iterator[int]:
    """A node that works in a thread of its own while the block lasts."""
    stop, ready, ids = threading.Event(), threading.Event(), list[int]()

    def on_ready(node_id: int) -> None:
        ids.append(node_id)
        ready.set()

    node = Node(app, {}, Nobody(), Nobody(), cancelled)
    thread = threading.Thread(target=node.serve, args=(address, certificate, on_ready, stop))
    thread.start()
    try:
        assert ready.wait(LONG)
        yield ids[0]
    finally:
        stop.set()
        thread.join(LONG)


def ask(node: int, number: int) -> list[Message]:
    content = RecordDict({"config": ConfigRecord({"round": number})})
    return [Message(content, node, MessageType.TRAIN)]


def test_a_late_node_begins_the_current_round_next(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled amid the first round, and the second is one that it never hears of."""
    monkeypatch.setattr(node_module, "WATCH_SECONDS", 0.02)
    cancelled, begun, amid = threading.Event(), list[int](), threading.Event()
    superlink, let_go = SuperLink(), threading.Event()

    def app(message: Message, context: Context) -> Message:
        begun.append(int(message.content["config"]["round"]))
        if begun[-1] == 1:
            amid.set()
            assert cancelled.wait(LONG)
            assert let_go.wait(LONG)
            raise Cancelled
        return Message(RecordDict(), reply_to=message)

    tls = certificates / "server"
    options = {"ssl_certfile": tls / "server.pem", "ssl_keyfile": tls / "server.key"}
    certificate = (certificates / "ca.pem").read_bytes()
    with (
        superlink.served(**options) as address,
        superlink.reached(),
        closing(PromptGrid(superlink.grid, lambda: False)) as grid,
        serving(app, address, certificate, cancelled) as node,
    ):
        first = threading.Thread(target=lambda: list(grid.exchange(ask(node, 1), 1.0)))
        first.start()
        assert amid.wait(LONG)
        first.join(LONG)
        assert list(grid.exchange(ask(node, 2), 0.1)) == []
        let_go.set()
        ((who, reply),) = grid.exchange(ask(node, 3), LONG)

    assert who == node
    assert not reply.has_error()
    assert begun == [1, 3]
