"""The process in which ServerApps run: it has imported what they need before the first run.

Flower's SuperExec starts a Python for each run, which imports Flower and torch while the clients
wait. This process is forked off the server, takes SuperLink's tasks as SuperExec does, and forks
once more for each run. It reaches into Flower's runtime: pinned, and guarded by a contract test.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.logger import mirror_output_to_queue
from flwr.supercore.runtime import RuntimeHttpClient

from fedbench.imports import importing
from fedbench.telemetry import logs

POLL_SECONDS = 0.1  # the server holds back its answer while there is no task

_forking = multiprocessing.get_context("fork")


@contextmanager
def running(address: str) -> Iterator[None]:
    """Runs ServerApps for the SuperLink at `address` while the block lasts.

    It forks: no thread may have been started yet.
    """
    process = _forking.Process(target=_take_tasks, args=(address, os.getpid()), name="executor")
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _take_tasks(address: str, parent: int) -> None:
    with importing():
        from flwr.superlink.runtime import run_serverapp  # noqa: F401

        import fedbench.server.app  # noqa: F401
    logs.adopt_flower()
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
    """What the command `flwr-serverapp` does."""
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
