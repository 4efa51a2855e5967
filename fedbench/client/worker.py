"""The process that trains: connects to the server, serves what it asks for, until it ends."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from fedbench.client.announce import Announcer
from fedbench.client.settings import Settings
from fedbench.imports import importing
from fedbench.telemetry import logs
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import NodeMetrics

QUOTA_POLL_SECONDS = 0.05
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(r"(?:(DEBUG|INFO|WARNING|ERROR|CRITICAL)\s*:\s*)?(.*)", re.DOTALL)

GiveUp = Callable[[], None]

log = logging.getLogger("fedbench.client")


def work(settings: Settings) -> int:
    """Run one connection; return non-zero if it was lost, so that the container starts again."""
    stop, gone = threading.Event(), threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    def give_up() -> None:
        gone.set()
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    run = _stock if settings.stock else _fedbench
    run(settings, stop, give_up)
    return 0 if stop.is_set() and not gone.is_set() else 1


def _fedbench(settings: Settings, stop: threading.Event, give_up: GiveUp) -> None:
    # Importing torch takes seconds of CPU: before the client says that it is ready.
    with importing():
        from fedbench.client import app
        from fedbench.client.node import Node
        from fedbench.learning.processor import set_threads
        from fedbench.telemetry.exposition import client_metrics, serve

    logs.adopt_flower()
    metrics = client_metrics(app.cgroup, app.companions)
    app.report_to(metrics)
    serve(settings.listen_port)
    node = Node(app.app, settings.node_config(), metrics, app.transfers, app.cancelled)
    with contextlib.ExitStack() as stack:

        def ready(node_id: int) -> None:
            stack.enter_context(_announced(settings, node_id, stop, give_up, metrics))
            if settings.limited:
                wait_for_quota(app.cgroup, stop)
            set_threads(settings.threads or app.cgroup.usable_cpus())
            log.info("%s (%s) is node %s", settings.client, settings.device, node_id)

        node.serve(settings.server, settings.certificate.read_bytes(), ready, stop)


def _stock(settings: Settings, stop: threading.Event, give_up: GiveUp) -> None:
    from fedbench.telemetry.exposition import serve, stock_metrics

    cgroup = Cgroup()
    metrics = stock_metrics(cgroup)
    serve(settings.listen_port)
    config = " ".join(f'{key}="{value}"' for key, value in settings.node_config().items())
    command = ["flower-supernode", "--superlink", settings.server]
    command += ["--root-certificates", str(settings.certificate), "--node-config", config]
    with _announced(settings, None, stop, give_up, metrics):
        if settings.limited:
            wait_for_quota(cgroup, stop)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as supernode:
            assert supernode.stdout is not None  # noqa: S101 (asked for above)
            threading.Thread(target=relay, args=(supernode.stdout,), daemon=True).start()
            while supernode.poll() is None and not stop.wait(1):
                pass
            supernode.terminate()


def relay(lines: Iterable[str]) -> None:
    """Log what the stock node prints, each line at the level that it begins with."""
    supernode = logging.getLogger("flwr.supernode")
    for line in lines:
        level, text = _LEVEL.fullmatch(_COLOUR.sub("", line).strip()).groups()  # type: ignore[union-attr]
        supernode.log(logging.getLevelNamesMapping()[level or "INFO"], text)


def wait_for_quota(cgroup: Cgroup, stop: threading.Event) -> None:
    """Wait until this container has a CPU quota, or `stop` is set.

    The host lifts the quota while a client starts, and puts it in force when the client is ready;
    a host that dies in between leaves a client that waits, not one that trains too fast.
    """
    if cgroup.cpu_quota() is None:
        log.info("waiting for the CPU quota")
        while cgroup.cpu_quota() is None and not stop.wait(QUOTA_POLL_SECONDS):
            pass


@contextlib.contextmanager
def _announced(
    settings: Settings,
    node_id: int | None,
    stop: threading.Event,
    give_up: GiveUp,
    metrics: NodeMetrics,
) -> Iterator[None]:
    announcer = Announcer(
        settings, node_id, stop.wait, metrics.connected, pacing=metrics.pacing, gone=give_up
    )
    with announcer.running():
        settings.ready.touch()
        try:
            yield
        finally:
            settings.ready.unlink(missing_ok=True)
