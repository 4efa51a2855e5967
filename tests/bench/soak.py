"""Many short rounds with clients that come and go: what grows, and what looking costs then.

A server and clients as processes on loopback, with real nodes; a round exchanges 100 kB and trains
nothing. One client after the other ends, by a signal or by a kill, and comes again. Growth is the
slope of a straight line through a figure of the second half of the run, per 100 rounds; its spread
is two standard errors to either side: what is flat has zero in it. Memory is proportional, so that
what processes share counts once. Looks in the last fifth of the rounds are beside those in a fifth
near their beginning.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import mean

import numpy as np
import psutil
from row import Row, row
from safetensors.numpy import save_file

from fedbench.config import Experiment, Machine, Profile
from fedbench.engines.containers.runtime import certificates
from fedbench.host.watch.top.live import Lines
from fedbench.records.facts import RunInputs
from fedbench.records.runs import Run, RunStore

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "tests" / "client" / "native_client.py"
SERVER = Path(__file__).with_name("soak_server.py")
MEGABYTES = 0.1
LOOK_SECONDS = 0.5  # as `fedbench run` looks


@dataclass(frozen=True)
class Scale:
    """Rounds, clients, how many of these come and go, and how often one of them ends."""

    rounds: int
    clients: int
    fickle: int
    change_seconds: float


SHORT = Scale(rounds=80, clients=4, fickle=1, change_seconds=8)
FULL = Scale(rounds=500, clients=8, fickle=2, change_seconds=8)


def rows(command: str) -> Iterator[Row]:
    yield from soak(SHORT, "soak", command)


def long_rows(command: str) -> Iterator[Row]:
    yield from soak(FULL, "soak_full", command)


@dataclass
class Sample:
    """What processes have at one moment, after so many rounds."""

    rounds: int
    figures: dict[str, float]


@dataclass
class Glance:
    """What a look cost of this process' CPU time, after so many rounds."""

    rounds: int
    milliseconds: float


@dataclass
class Federation:
    """A server and its clients, as processes."""

    folder: Path
    stack: ExitStack
    ports: list[int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def spawn(self, name: str, *argv: str, **environment: str) -> subprocess.Popen[bytes]:
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "FLWR_HOME": str(self.folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        log = self.stack.enter_context((self.folder / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            [sys.executable, *argv], env=environment, stdout=log, stderr=log, cwd=self.folder
        )
        self.processes[name] = process
        return process

    def start_server(self) -> None:
        certificates.ensure(self.folder / "tls")
        ports = map(str, self.ports[:3])
        tls, census = self.folder / "tls" / "server", self.folder / "census.jsonl"
        self.spawn("server", str(SERVER), str(tls), str(census), *ports)

    def start_client(self, name: str, port: int) -> None:
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / "ready").unlink(missing_ok=True)
        (self.folder / name / "ca.pem").write_bytes((self.folder / "tls" / "ca.pem").read_bytes())
        settings = {
            "CLIENT": name,
            "DEVICE": "laptop",
            "SERVER": f"localhost:{self.ports[1]}",
            "METRICS_PORT": str(port),
        }
        self.spawn(
            name, str(CLIENT), str(self.folder / name),
            **{f"FEDBENCH_{key}": value for key, value in settings.items()},
        )  # fmt: skip

    def end(self) -> None:
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def family(self, name: str) -> list[psutil.Process]:
        """A process and its children: the server with its ServerApp, a client's worker."""
        with suppress(psutil.Error):
            process = psutil.Process(self.processes[name].pid)
            return [process, *process.children(recursive=True)]
        return []

    def figures(self, name: str) -> dict[str, float]:
        """Megabytes, descriptors and threads of a process and its children."""
        found = {"mb": 0.0, "descriptors": 0.0, "threads": 0.0}
        for process in self.family(name):
            with suppress(psutil.Error):
                found["mb"] += process.memory_full_info().pss / 1e6
                found["descriptors"] += process.num_fds()
                found["threads"] += process.num_threads()
        return found


def soak(scale: Scale, name: str, command: str) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        federation = Federation(Path(temporary), stack, free_ports(3 + scale.clients))
        try:
            yield from measured(federation, scale, name, command)
        finally:
            federation.end()


def measured(federation: Federation, scale: Scale, name: str, command: str) -> Iterator[Row]:
    clients = [f"pc-{number}" for number in range(scale.clients)]
    federation.start_server()
    ports = dict(zip(clients, federation.ports[3:], strict=True))
    for client, port in ports.items():
        partition(federation.folder / client / "data" / "soak")
        federation.start_client(client, port)
    run = created(federation.folder, scale)
    launch = ["-m", "fedbench.server.launch", str(run.path), "--operations-port"]
    wait_for(lambda: all((federation.folder / each / "ready").exists() for each in clients))
    began = time.monotonic()
    process = federation.spawn("launch", *launch, str(federation.ports[2]))
    stable = clients[: -scale.fickle]
    samples, looks, changes = follow(federation, scale, run, process, stable, ports)
    seconds = time.monotonic() - began
    assert process.returncode == 0, (federation.folder / "server.log").read_text()[-3000:]
    summary = run.summary()
    assert summary.status == "finished"
    assert len(summary.rounds) == scale.rounds
    by_round = [record.duration_seconds for record in summary.rounds]
    yield row(f"{name}_round", by_round, "s", command, more_is_better=False)
    yield row(f"{name}_changes", [changes], "clients that ended", command, more_is_better=True)
    for who in ("server", "clients"):
        for what, unit in (("mb", "MB"), ("descriptors", ""), ("threads", "")):
            yield from growth(samples, f"{who}_{what}", unit, name, command)
    census = [json.loads(line) for line in (federation.folder / "census.jsonl").open()]
    for store in census[0]:
        kept = [float(line[store]) for line in census[len(census) // 2 :]]
        yield row(f"{name}_kept_{store}", kept, "", command, more_is_better=False)
    disk = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    each = disk / scale.rounds / 1e3
    yield row(f"{name}_disk", [each], "kB a round", command, more_is_better=False)
    early, late = (
        [look.milliseconds for look in looks if begin <= look.rounds / scale.rounds < begin + 0.2]
        for begin in (0.1, 0.8)
    )
    yield row(f"{name}_look", late, "ms", command, early, more_is_better=False)
    yield row(f"{name}_seconds", [seconds], "s", command, more_is_better=False)


def follow(
    federation: Federation,
    scale: Scale,
    run: Run,
    process: subprocess.Popen[bytes],
    stable: Sequence[str],
    ports: dict[str, int],
) -> tuple[list[Sample], list[Glance], int]:
    """Look, sample, and let clients come and go, until the run is over."""
    said: list[str] = []
    look = Lines(run, said.append)
    samples: list[Sample] = []
    looks: list[Glance] = []
    fickle = cycle(name for name in ports if name not in stable)
    ways = cycle((signal.SIGTERM, signal.SIGKILL))
    changes, next_change = 0, time.monotonic() + scale.change_seconds
    while process.poll() is None:
        before = time.thread_time()
        look()
        rounds = rounds_of(run)
        looks.append(Glance(rounds, 1e3 * (time.thread_time() - before)))
        each = [federation.figures(name) for name in stable]
        clients = {f"clients_{key}": mean(one[key] for one in each) for key in each[0]}
        server = {f"server_{key}": value for key, value in federation.figures("server").items()}
        if rounds_of(run) < scale.rounds:  # else the run's process may be gone by now
            samples.append(Sample(rounds, clients | server))
        if time.monotonic() > next_change:
            next_change = time.monotonic() + scale.change_seconds
            name = next(fickle)
            if (federation.folder / name / "ready").exists():  # else it is still on its way
                changes += 1
                restart(federation, name, next(ways), ports)
        time.sleep(LOOK_SECONDS)
    return samples, looks, changes


def restart(federation: Federation, name: str, how: signal.Signals, ports: dict[str, int]) -> None:
    """End a client's processes, and start it again."""
    old = federation.processes[name]
    for process in federation.family(name)[:: -1 if how == signal.SIGKILL else 1]:
        with suppress(psutil.Error):
            process.send_signal(how)
        if how == signal.SIGTERM:
            break  # the supervisor ends its worker
    old.wait(60)
    federation.start_client(name, ports[name])


def rounds_of(run: Run) -> int:
    """How many rounds are recorded."""
    path = run.path / "rounds.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def growth(
    samples: Sequence[Sample], what: str, unit: str, name: str, command: str
) -> Iterator[Row]:
    """The slope in the second half, beside what strays from it; and the figure itself."""
    half = [each for each in samples[len(samples) // 2 :] if each.rounds]
    values = [each.figures[what] for each in half]
    times = [float(each.rounds) for each in half]
    slope, base = np.polyfit(times, values, 1)
    strayed = np.std(np.array(values) - (slope * np.array(times) + base))
    error = 2 * strayed / (np.std(times) * np.sqrt(len(times)))
    likely = [100 * float(slope + each) for each in (-error, 0, error)]
    yield row(f"{name}_{what}", values, unit, command, more_is_better=False)
    per = f"{unit} per 100 rounds".strip()
    yield row(f"{name}_{what}_growth", likely, per, command, more_is_better=False)


def created(folder: Path, scale: Scale) -> Run:
    """The run's folder, as the host makes it."""
    experiment = Experiment(
        name="soak",
        task="noop",
        noop_megabytes=MEGABYTES,
        rounds=scale.rounds,
        failing_rounds=scale.rounds,
    )
    machines = (Machine(device="laptop", count=scale.clients),)
    inputs = RunInputs(clients=scale.clients, classes=10, data="soak")
    profile = Profile(name="soak", machines=machines)
    return RunStore(folder / "runs").create(experiment, profile, inputs)


def partition(folder: Path) -> None:
    """Images of nothing: they are counted, and not looked at."""
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        tensors = {"images": np.zeros((16, 32, 32, 3), np.uint8), "labels": np.arange(16) % 10}
        classes = {"classes": json.dumps([str(number) for number in range(10)])}
        save_file(tensors, folder / f"{name}.safetensors", classes)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the clients did not come"
        time.sleep(0.1)
