"""The process in which ServerApps run: it has imported what they need before the first run.

Flower's SuperExec starts a Python for each run, which imports Flower and torch while the clients
wait. This process is forked off the server, takes SuperLink's tasks as SuperExec does, and forks
once more for each run. Where a ServerApp dies it tells SuperLink, which would believe in it for
another minute.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from queue import Queue

import httpx
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PushTaskOutputRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.logger import mirror_output_to_queue
from flwr.supercore.runtime import RuntimeHttpClient

POLL_SECONDS = 0.1  # the server holds back its answer while there is no task
ASK_SECONDS = 10.0  # for another task, while there is one

_forking = multiprocessing.get_context("fork")
_spawning = multiprocessing.get_context("spawn")


class Executor:
    """Runs ServerApps for the SuperLink at `address` (host:port).

    Its process calls `prepare`, a function of a module, before its first run, to import what the
    ServerApp needs.
    """

    def __init__(self, address: str, prepare: Callable[[], object]) -> None:
        self._address = address
        self._prepare = prepare
        self._process = self._made_by(_forking.Process)
        self._deaths: list[str] = []

    def start(self) -> None:
        """Fork the process: no thread may have been started yet."""
        self._process.start()

    def revive(self) -> str | None:
        """Start the process again if it has died, and return what it died of.

        By now there are threads: the new one is no fork, and has to import everything anew.
        """
        if self._process.is_alive():
            return None
        self._deaths.append(f"the executor died ({_how(self._process.exitcode)})")
        self._process = self._made_by(_spawning.Process)
        self._process.start()
        return self._deaths[-1]

    def watch(self) -> Callable[[], str | None]:
        """Return what says why the process that is there now has died; None while it lives."""
        before = len(self._deaths)
        return lambda: self._deaths[before] if len(self._deaths) > before else None

    def end(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()

    def _made_by(self, make: Callable[..., BaseProcess]) -> BaseProcess:
        arguments = (self._address, os.getpid(), self._prepare)
        return make(target=_take_tasks, args=arguments, name="executor")


@contextmanager
def running(address: str, prepare: Callable[[], object]) -> Iterator[Executor]:
    """Have an executor while the block lasts. It forks: no thread may have been started yet."""
    executor = Executor(address, prepare)
    executor.start()
    try:
        yield executor
    finally:
        executor.end()


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
    running: _ServerAppProcess | None = None
    while os.getppid() == parent:
        if running and running.goes_on():
            continue
        try:
            token = client.AcquireTask(request).token
        except httpx.TransportError:  # SuperLink is starting, or ending
            time.sleep(POLL_SECONDS)
            continue
        if token:
            if running:
                running.kill()  # it hangs: SuperLink has another
            running = _ServerAppProcess(address, token)
        elif running is None or not running.is_alive():
            time.sleep(POLL_SECONDS)


class _ServerAppProcess:
    """A process of one ServerApp."""

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._token = token
        self._process = _forking.Process(target=_run, args=(address, token, os.getpid()))
        self._process.start()
        self._ended = False
        self._asked = time.monotonic()

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def goes_on(self) -> bool:
        """Wait a moment; return False if it has ended, and every ten seconds beside.

        Of one that died SuperLink is told; others said themselves how they ended.
        """
        self._process.join(POLL_SECONDS)
        if self._process.is_alive():
            if time.monotonic() - self._asked < ASK_SECONDS:
                return True
            self._asked = time.monotonic()
        elif not self._ended:
            self._ended = True
            if code := self._process.exitcode:
                _tell(self._address, self._token, f"the ServerApp died ({_how(code)})")
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _tell(address: str, token: str, reason: str) -> None:
    """Tell SuperLink that a ServerApp failed; it refuses where it knows how that ended."""
    interceptors = [
        RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
        RuntimeTokenHttpInterceptor(token),
    ]
    client = RuntimeHttpClient.from_server_address(
        address, insecure=True, root_certificates=None, interceptors=interceptors
    )
    with client, suppress(httpx.HTTPError):
        client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=reason))


def _how(code: int | None) -> str:
    """Say what a process ended with."""
    code = code or 0
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


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
