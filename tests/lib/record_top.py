"""Records what a real Prometheus answers to `fedbench top`: tests/golden/top/answers.json.

    env PYTHONPATH=$PWD .venv/bin/python tests/lib/record_top.py

About three minutes; needs `prometheus` on PATH (Debian's package has it). It scrapes three clients
and a server by the real configuration and rules. Their metrics are fedbench's own; only what they
report is made up: rounds in which nobody trains, and cgroups that are files.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from fedbench.host.watch.prometheus import Prometheus
from fedbench.host.watch.top.query import ask
from fedbench.records import ClientRound, RoundParts, RoundRecord, replace_text
from fedbench.records.clock import Dilation, WallSeconds
from fedbench.records.energy import Draw
from fedbench.records.verdict import Emulation
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.emulated_device import EmulatedDevice
from fedbench.telemetry.exposition import serve
from fedbench.telemetry.server import ServerMetrics
from fedbench.telemetry.work import ClientPhase

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests/golden/top/answers.json"
RUN, ROUNDS, EPOCHS, DILATION = "20261125-124422-digits", 6, 3, 4.0
ASKED_IN_ROUND = 5
MODEL_BYTES = 6_200_000
# Seconds and samples are those of an epoch, emulated; `takes` is how long it really takes.
DEVICES: dict[str, dict[str, Any]] = {
    "laptop": {
        "target": 0.32, "takes": 0.34, "quota": 2.4, "gib": 16, "watts": (9, 45), "samples": 340,
    },
    "legacy-pc": {
        "target": 2.16, "takes": 2.41, "quota": 0.4, "gib": 4, "watts": (40, 95), "samples": 345,
        "kills": 1,
    },
    "workstation": {
        "target": 2.03, "takes": 2.01, "quota": 0.5, "gib": 24, "watts": (60, 180), "samples": 346,
    },
}  # fmt: skip


class Client:
    """One client, which reports rounds as a real one does; seconds are wall seconds."""

    def __init__(
        self, name: str, folder: Path, *, target: float, takes: float, quota: float, gib: int,
        watts: tuple[float, float], samples: int, kills: int = 0,
    ) -> None:  # fmt: skip
        self.name, self.target, self.takes, self._samples = name, target, takes, samples
        self._quota, self._kills, self._used, self._periods, self._throttled = (
            quota,
            kills,
            0.0,
            0,
            0,
        )
        self._base = folder / name / "sys/fs/cgroup"
        self._base.mkdir(parents=True)
        (folder / name / "proc").mkdir()
        (folder / name / "proc/stat").write_text("")
        (self._base / "cpu.max").write_text(f"{quota * 1e5:.0f} 100000")
        (self._base / "cpuset.cpus.effective").write_text("0-7")
        (self._base / "memory.max").write_text(str(gib * 2**30))
        (self._base / "memory.events").write_text(f"oom_kill {kills}")
        self._account(0.0, 0.0)
        registry = CollectorRegistry()
        device = EmulatedDevice(Dilation(DILATION), Draw(*watts))
        self.metrics = ClientMetrics(registry, Cgroup(folder / name), device=device)
        self.metrics.connected(True)
        self.metrics.partition(samples)
        self.port = serve(0, registry).server_port

    def round(self, number: int) -> None:
        """Receives, trains, evaluates and sends."""
        self._exchange("receiving", 1.2, received=MODEL_BYTES)
        with self.metrics.phase("training"):
            for epoch in range(1, EPOCHS + 1):
                self._epoch(number, epoch)
        self._busy("evaluating", 1.6)
        loss, accuracy = 2.2 / (number + 1), 1 - 0.8 / (number + 1)
        self.metrics.evaluated(
            run=RUN, round_number=number, seconds=1.6, loss=loss, accuracy=accuracy
        )
        self._exchange("sending", 2.1, sent=MODEL_BYTES)

    def idle_until(self, moment: threading.Event) -> None:
        """Waits, as while others train."""
        while not moment.wait(0.25):
            self._account(0.25, 0.02)

    def _epoch(self, number: int, epoch: int) -> None:
        seconds, steps = self.takes * DILATION, 8
        for step in range(1, steps + 1):
            self._work(seconds / steps, 0.93)
            self.metrics.progress(
                run=RUN, round_number=number, epoch=epoch, epochs=EPOCHS,
                samples=self._samples * step // steps, seconds=seconds * step / steps,
            )  # fmt: skip
        done = (number - 1) * EPOCHS + epoch
        self.metrics.epoch_finished(
            run=RUN, round_number=number, seconds=seconds, loss=2 / (done + 1),
            accuracy=1 - 0.7 / done, samples=self._samples, due=self.target * DILATION,
        )  # fmt: skip

    def _exchange(self, phase: ClientPhase, seconds: float, **size: int) -> None:
        self._busy(phase, seconds, use=0.2)
        self.metrics.transferred(**size, seconds=seconds, model=True)

    def _busy(self, phase: ClientPhase, seconds: float, use: float = 0.9) -> None:
        with self.metrics.phase(phase):
            self._work(seconds, use)

    def _work(self, seconds: float, use: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            step = min(left, 0.25)
            time.sleep(step)
            self._account(step, use)

    def _account(self, seconds: float, use: float) -> None:
        """The kernel's part: what the cgroup has used."""
        self._used += seconds * use * self._quota
        self._periods += round(seconds * 10)
        self._throttled += round(seconds * 10 * max(use - 0.5, 0))
        replace_text(
            self._base / "cpu.stat",
            f"usage_usec {self._used * 1e6:.0f}\nnr_periods {self._periods}\n"
            f"nr_throttled {self._throttled}\nthrottled_usec {self._throttled * 20_000}\n",
        )
        replace_text(self._base / "memory.current", str(int((380 + 40 * use) * 2**20)))
        replace_text(self._base / "memory.peak", str(455 * 2**20))

    def record(self) -> ClientRound:
        """What the server knows of its round."""
        return ClientRound(
            client=self.name, device=self.name, dilation=DILATION, samples=self._samples,
            epoch_seconds=[self.takes * DILATION] * EPOCHS, evaluate_seconds=1.6,
            bytes_sent=MODEL_BYTES, bytes_received=MODEL_BYTES,
            target_epoch_seconds=self.target, emulation_error=self.takes / self.target - 1,
        )  # fmt: skip


def rounds(clients: list[Client], server: ServerMetrics, ask_now: threading.Event) -> None:
    """Runs rounds until the last client of one trains its last epoch, then for some seconds."""
    for number in range(1, ASKED_IN_ROUND + 1):
        began, at = time.monotonic(), datetime.now(UTC).isoformat()
        server.round_started(RUN, number, ROUNDS)
        over = threading.Event()
        work = [threading.Thread(target=client.round, args=(number,)) for client in clients]
        idle = [
            threading.Thread(target=_then_idle, args=(c, w, over))
            for c, w in zip(clients, work, strict=True)
        ]
        for thread in (*work, *idle):
            thread.start()
        if number == ASKED_IN_ROUND:
            slowest = max(client.takes for client in clients)
            time.sleep(1.2 + (EPOCHS - 0.2) * slowest * DILATION)
            ask_now.set()
        for thread in work:
            thread.join()
        over.set()
        for thread in idle:
            thread.join()
        server.observe(_record(number, at, time.monotonic() - began, clients), RUN, ROUNDS)


def _then_idle(client: Client, work: threading.Thread, over: threading.Event) -> None:
    work.join()
    client.idle_until(over)


def _record(number: int, at: str, seconds: float, clients: list[Client]) -> RoundRecord:
    emulation = Emulation(watts={name: device["watts"] for name, device in DEVICES.items()})
    return RoundRecord(
        round=number, started_at=at, server_accuracy=1 - 0.9 / number**0.7,
        server_loss=2.3 / number**0.6, server_epoch_seconds=0.25, duration_seconds=seconds,
        overhead_seconds=0.5, aggregate_seconds=0.125,
        parts=RoundParts(send=0.1, receive=0.1, serialise=0.05, aggregate=0.125, wait=0.125),
        clients=emulation.with_energy([c.record() for c in clients], WallSeconds(seconds)),
    )  # fmt: skip


class Recorder(Prometheus):
    """Keeps the data of each answer."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.answers: list[dict[str, Any]] = []

    def _get(self, path: str, holds: str, **parameters: str) -> dict[str, Any]:
        self.answers.append(super()._get(path, holds, **parameters))
        return self.answers[-1]


@contextmanager
def scraping(folder: Path, server: int, clients: list[Client]) -> Iterator[Recorder]:
    """A Prometheus with the real configuration, but for where server and clients are."""
    configured = ROOT / "compose/prometheus"
    config = yaml.safe_load((configured / "prometheus.yml").read_text())
    of_server, of_clients = config["scrape_configs"]
    of_server["static_configs"][0]["targets"] = [f"127.0.0.1:{server}"]
    del of_clients["http_sd_configs"]
    of_clients["static_configs"] = [
        {"targets": [f"127.0.0.1:{c.port}"], "labels": {"client": c.name, "device": c.name}}
        for c in clients
    ]
    shutil.copytree(configured / "rules", folder / "rules")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        "prometheus", f"--config.file={folder}/prometheus.yml", "--log.level=warn",
        f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with subprocess.Popen(command) as process:
        try:
            yield Recorder(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def main() -> None:
    """Runs the rounds, asks once in their midst, and writes the answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clients = [Client(name, folder, **device) for name, device in DEVICES.items()]
        registry = CollectorRegistry()
        server = ServerMetrics(registry)
        server.run_started(RUN, experiment="digits", profile="heterogeneous", model="mobilenet_v2")
        server.run_phase(RUN, "running")
        with scraping(folder, serve(0, registry).server_port, clients) as prometheus:
            ask_now = threading.Event()
            run = threading.Thread(target=rounds, args=(clients, server, ask_now))
            run.start()
            ask_now.wait()
            ask(prometheus)
            run.join()
        named = zip(("facts", "phases", "curves", "rules"), prometheus.answers, strict=True)
        FILE.write_text(json.dumps(dict(named), sort_keys=True, separators=(",", ":")) + "\n")
        print(f"written {FILE}", file=sys.stderr)


if __name__ == "__main__":
    main()
