"""The process in which ServerApps run: it has imported what they need before the first run.

Flower's SuperExec starts a Python for each run, which imports Flower and torch while the clients
wait. This process is forked off the server, takes SuperLink's tasks as SuperExec does, and forks
once more for each run.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.logger import mirror_output_to_queue
from flwr.supercore.runtime import RuntimeHttpClient

POLL_SECONDS = 0.1  # the server holds back its answer while there is no task

_forking = multiprocessing.get_context("fork")


@contextmanager
def running(address: str, prepare: Callable[[], object]) -> Iterator[None]:
    """Run ServerApps for the SuperLink at `address` (host:port) while the block lasts.

    The process calls `prepare` before its first run, to import what the ServerApp needs. It forks:
    no thread may have been started yet.
    """
    process = _forking.Process(
        target=_take_tasks, args=(address, os.getpid(), prepare), name="executor"
    )
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def preload() -> None:
    """Import what runs a ServerApp; each run forks off with it."""
    from flwr.superlink.runtime import run_serverapp  # noqa: F401


def _take_tasks(address: str, parent: int, prepare: Callable[[], object]) -> None:
    prepare()
    client = RuntimeHttpClient.from_server_address(
        address,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec")],
    )
    request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
    while os.getppid() == parent:
        multiprocessing.active_children()  # joins those that ended
        try:
            answer = client.AcquireTask(request)
        except httpx.TransportError:  # SuperLink is starting, or ending
            time.sleep(POLL_SECONDS)
            continue
        if answer.token:
            _forking.Process(target=_run, args=(address, answer.token, os.getpid())).start()
        else:
            time.sleep(POLL_SECONDS)


def _run(address: str, token: str, parent: int) -> None:
    """Do what the command `flwr-serverapp` does."""
    from flwr.superlink.runtime import run_serverapp

    log: Queue[str | None] = Queue()
    mirror_output_to_queue(log)
    run_serverapp(
        runtime_api_address=address,
        log_queue=log,
        token=token,
        insecure=True,
        parent_pid=parent,
        runtime_dependency_install=False,
    )
