"""The clients of a run in memory: processes that call the ClientApp, one message at a time.

A worker serves any client: who it is for the moment comes with the message. So there are as many
as the host can use, and not one for each client.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any

from flwr.app import Context, Message, RecordDict

from fedbench.client import app
from fedbench.client.node import task_of
from fedbench.flower.messages import app_error, identify
from fedbench.learning.processor import set_threads
from fedbench.telemetry import logs
from fedbench.telemetry.work import WorkCounter
from fedbench.wire import WORK

WATCH_SECONDS = 0.5
_RUN_ID = 1  # as Flower numbers runs: there is one
# Figures of a client's own container, of which there is none here.
_OF_A_CONTAINER = (
    "cpu_seconds", "throttled_seconds", "peak_memory_bytes", "busy_share_seconds", "epochs",
)  # fmt: skip

_spawning = multiprocessing.get_context("spawn")  # a fork would share CUDA and threads


@dataclass(frozen=True)
class Client:
    """One client: its name, its device's, and the folder of its data."""

    name: str
    device: str
    data: str

    def context(self, node_id: int) -> Context:
        """Return what the ClientApp finds around it."""
        config = {"client": self.name, "device": self.device, "data": self.data}
        return Context(_RUN_ID, node_id, config, RecordDict(), {})


class Workers:
    """`count` processes with `threads` threads each; with 0, this process does the work itself.

    `Ctrl-C` is not for them: whoever started them says when they stop.
    """

    def __init__(self, clients: Mapping[int, Client], count: int, threads: int = 1) -> None:
        identify(_RUN_ID)
        self._clients = clients
        self._cancelled = _spawning.Event()
        self._trained = _spawning.Value("q", 0)
        self._pool = None
        if count:
            start = (self._cancelled, self._trained, os.getpid(), threads)
            self._pool = ProcessPoolExecutor(count, _spawning, _begin, start)

    @property
    def node_ids(self) -> list[int]:
        """The nodes of all clients."""
        return list(self._clients)

    def trained(self) -> int:
        """Return how many images were trained so far, each as often as it was."""
        return int(self._trained.value)

    def submit(self, message: Message) -> Future[Message]:
        """Return the reply, once it is there; an exception of the ClientApp is an error reply."""
        node_id = message.metadata.dst_node_id
        task = (self._clients[node_id], node_id, message)
        if self._pool:
            return self._pool.submit(_answer, *task)
        future = Future[Message]()
        future.set_result(_answer(*task))
        return future

    def cancel(self) -> None:
        """End what is going on after the batch at hand."""
        self._cancelled.set()

    def close(self) -> None:
        """End the processes."""
        self.cancel()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


def worker_count(clients: int, cores: int, *, gpu: bool) -> int:
    """Return how many processes train at once, where nobody said.

    A GPU is one device, and one process fills it. A few more clients than cores train side by side:
    one after the other, the last would leave cores idle. Many take turns, for each needs memory.
    """
    if gpu:
        return 1
    return clients if clients < 2 * cores else cores


def _begin(cancelled: Event, trained: Any, parent: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(service="engine")
    identify(_RUN_ID)
    set_threads(threads)
    counter = WorkCounter()
    app.report_to(counter)
    told = (counter, cancelled, trained, parent, app.cancelled.set)
    threading.Thread(target=_watch, args=told, daemon=True).start()


def _watch(
    counter: WorkCounter,
    cancelled: Event,
    trained: Any,
    parent: int,
    cancel: Callable[[], None],
) -> None:
    """Add what was trained to the workers' sum; end this process when its parent is gone."""
    before = 0
    while os.getppid() == parent:
        now = counter.trained_samples
        with trained.get_lock():
            trained.value += now - before
        before = now
        if cancelled.is_set():
            cancel()
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _answer(client: Client, node_id: int, message: Message) -> Message:
    with logs.about(client=client.name, device=client.device, **task_of(message)):
        return _reply(client, node_id, message)


def _reply(client: Client, node_id: int, message: Message) -> Message:
    try:
        reply = app.app(message, client.context(node_id))
    except Exception as error:
        return app_error(message, f"{type(error).__name__}: {error}")
    if reply.has_content() and WORK in reply.content:
        work = json.loads(str(reply.content[WORK][WORK]))
        for key in _OF_A_CONTAINER:
            work.pop(key, None)
        reply.content[WORK][WORK] = json.dumps(work)
    return reply
