"""The process that trains: connects to the server, serves what it asks for, until it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from types import FrameType

from fedbench.client.announce import Announcer
from fedbench.client.settings import Settings
from fedbench.imports import importing
from fedbench.telemetry import logs
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import NodeMetrics

QUOTA_POLL_SECONDS = 0.05
AGAIN_SECONDS = 0.5
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(r"(?:(DEBUG|INFO|WARNING|ERROR|CRITICAL)\s*:\s*)?(.*)", re.DOTALL)

log = logging.getLogger("fedbench.client")


class Stop(threading.Event):
    """Set when the present connection is to end: for good if the container was `told` so.

    `cancelled` is set with it: work for a server that is gone is given up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told = False
        self.cancelled = threading.Event()

    def set(self) -> None:
        """Let the connection end."""
        super().set()
        self.cancelled.set()

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """End: for good on SIGTERM. SIGINT is Flower's, whose heartbeat the server refused."""
        self.told = self.told or number == signal.SIGTERM
        self.set()

    def renew(self) -> bool:
        """Be unset for a new connection; return False if there is to be none."""
        self.clear()
        return not self.told  # a signal since then has set it again


def work(settings: Settings) -> int:
    """Run until told to stop; return non-zero if the container has to start again instead."""
    stop = Stop()
    signal.signal(signal.SIGTERM, stop.on_signal)
    signal.signal(signal.SIGINT, stop.on_signal)
    run = _stock if settings.stock else _fedbench
    run(settings, stop)
    return 0 if stop.told else 1


def _fedbench(settings: Settings, stop: Stop) -> None:
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
    stop.cancelled = app.cancelled

    def connect(settings: Settings) -> bool:
        """Serve one connection to its end; return whether there was one."""
        node = Node(app.app, settings.node_config(), metrics, app.transfers, app.cancelled)
        with contextlib.ExitStack() as stack:

            def ready(node_id: int) -> None:
                stack.enter_context(_announced(settings, node_id, stop, metrics))
                if settings.limited:
                    wait_for_quota(app.cgroup, stop)
                set_threads(settings.threads or app.cgroup.usable_cpus())
                log.info("%s (%s) is node %s", settings.client, settings.device, node_id)

            node.serve(settings.server, settings.certificate.read_bytes(), ready, stop)
            return settings.ready.exists()

    stay_connected(connect, settings, stop)


def stay_connected(connect: Callable[[Settings], bool], settings: Settings, stop: Stop) -> None:
    """Connect again, as a new instance, whenever a connection that there was is lost.

    The process stays: what it imported took a slow device long. One that cannot be made at all ends
    it, so that the container starts again.
    """
    while connect(settings) and stop.renew():
        log.warning("the connection is lost: this client starts anew")
        stop.wait(AGAIN_SECONDS)
        settings = replace(settings, instance=os.urandom(16).hex())


def _stock(settings: Settings, stop: Stop) -> None:
    from fedbench.flower import clock
    from fedbench.telemetry.exposition import serve, stock_metrics

    ahead = clock.seconds_ahead(settings.server, settings.certificate.read_bytes()) or 0.0
    if abs(ahead) > clock.TOLD_SECONDS:
        log.warning("%s: set it, or the stock node may not be let in", clock.describe(ahead))
    cgroup = Cgroup()
    metrics = stock_metrics(cgroup)
    serve(settings.listen_port)
    config = " ".join(f'{key}="{value}"' for key, value in settings.node_config().items())
    command = ["flower-supernode", "--superlink", settings.server]
    command += ["--root-certificates", str(settings.certificate), "--node-config", config]
    with _announced(settings, None, stop, metrics):
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
    settings: Settings, node_id: int | None, stop: threading.Event, metrics: NodeMetrics
) -> Iterator[None]:
    announcer = Announcer(
        settings, node_id, stop.wait, metrics.connected, pacing=metrics.pacing, gone=stop.set
    )
    with announcer.running():
        settings.ready.write_text(settings.instance)
        try:
            yield
        finally:
            settings.ready.unlink(missing_ok=True)
