"""The client container's process: `python -m fedbench.client`.

Settings come from the environment, written by the plan or by `fedbench join`:
FEDBENCH_CLIENT, FEDBENCH_DEVICE, FEDBENCH_SERVER (host:port), FEDBENCH_NODE (fedbench or stock),
FEDBENCH_METRICS_PORT (what the server's Prometheus reaches this client on), FEDBENCH_THREADS (as
many as the device needs), FEDBENCH_LIMITED (set where the plan has a CPU quota: a client starts
without it, and takes part with it or not at all).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from prometheus_client import start_http_server

from fedbench.client.announce import Announcer
from fedbench.imports import importing
from fedbench.telemetry.cgroup import Cgroup

METRICS_PORT = 9101
CERTIFICATE = Path("/tls/ca.pem")
DATA = Path("/data")
READY = Path("/tmp/ready")  # noqa: S108 (a tmpfs of this container's own; the health check's file)
QUOTA_POLL_SECONDS = 0.05

log = logging.getLogger("fedbench.client")


@dataclass(frozen=True)
class Settings:
    """Who this client is and where its server is."""

    client: str
    device: str
    server: str
    stock: bool
    metrics_port: int
    threads: int | None
    limited: bool
    instance: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def from_environment(cls) -> Settings:
        """Reads FEDBENCH_*."""
        env = os.environ
        return cls(
            client=env["FEDBENCH_CLIENT"],
            device=env["FEDBENCH_DEVICE"],
            server=env["FEDBENCH_SERVER"],
            stock=env.get("FEDBENCH_NODE") == "stock",
            metrics_port=int(env.get("FEDBENCH_METRICS_PORT", METRICS_PORT)),
            threads=int(env["FEDBENCH_THREADS"]) if "FEDBENCH_THREADS" in env else None,
            limited="FEDBENCH_LIMITED" in env,
        )

    def node_config(self) -> dict[str, str]:
        """What the ClientApp finds in `context.node_config`."""
        return {"client": self.client, "device": self.device, "data": str(DATA)}


def main() -> int:
    """Runs one connection; non-zero when it was lost, so that the container starts again."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    READY.unlink(missing_ok=True)
    settings = Settings.from_environment()
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return _stock(settings, stop) if settings.stock else _fedbench(settings, stop)


def _fedbench(settings: Settings, stop: threading.Event) -> int:
    # Importing torch takes seconds of CPU: before the client says that it is ready.
    with importing():
        from fedbench.client import app
        from fedbench.client.node import Node
        from fedbench.learning.train import set_threads

    start_http_server(METRICS_PORT)
    node = Node(app.app, settings.node_config(), app.metrics, app.wire, app.cancelled)
    with contextlib.ExitStack() as stack:

        def ready(node_id: int) -> None:
            stack.enter_context(_announced(settings))
            if settings.limited:
                wait_for_quota(app.cgroup, stop)
            set_threads(settings.threads or app.cgroup.usable_cpus())
            app.metrics.connected(True)
            log.info("%s (%s) is node %s", settings.client, settings.device, node_id)

        node.serve(settings.server, CERTIFICATE.read_bytes(), ready, stop)
    return 0 if stop.is_set() else 1


def _stock(settings: Settings, stop: threading.Event) -> int:
    from prometheus_client import REGISTRY

    from fedbench.telemetry.metrics import ClientMetrics

    cgroup = Cgroup()
    ClientMetrics(REGISTRY, cgroup).connected(True)
    start_http_server(METRICS_PORT)
    config = " ".join(f'{key}="{value}"' for key, value in settings.node_config().items())
    command = ["flower-supernode", "--superlink", settings.server]
    command += ["--root-certificates", str(CERTIFICATE), "--node-config", config]
    with _announced(settings):
        if settings.limited:
            wait_for_quota(cgroup, stop)
        with subprocess.Popen(command) as supernode:
            while supernode.poll() is None and not stop.wait(1):
                pass
            supernode.terminate()
    return 0 if stop.is_set() else 1


def wait_for_quota(cgroup: Cgroup, stop: threading.Event) -> None:
    """Waits until this container has a CPU quota, or `stop` is set.

    The host lifts the quota while a client starts, and puts it in force when the client is ready;
    a host that dies in between leaves a client that waits, not one that trains too fast.
    """
    if cgroup.cpu_quota() is None:
        log.info("waiting for the CPU quota")
        while cgroup.cpu_quota() is None and not stop.wait(QUOTA_POLL_SECONDS):
            pass


@contextlib.contextmanager
def _announced(settings: Settings) -> Iterator[None]:
    with Announcer(settings, CERTIFICATE).running():
        READY.touch()
        try:
            yield
        finally:
            READY.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
