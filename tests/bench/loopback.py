"""A federation without containers: a server, and clients behind networks of their own.

They are processes of this computer, with the programs that run in the containers. A stock node is
Flower's own flower-supernode and nothing else: the announcements which go with it in a container
have time limits of their own, and no other node has them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save_file

from fedbench.config import Experiment, Machine, Profile
from fedbench.engines.containers.runtime import certificates
from fedbench.records.facts import RunInputs
from fedbench.records.runs import Run, RunStore

sys.path.append(str(Path(__file__).resolve().parents[1] / "lib"))

from bad_network import BadNetwork, Conditions, free_ports

Node = Literal["fedbench", "stock"]

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests/client"
CLIENTS = ("one", "two", "three")
DATA = "random"
CLASSES = [str(number) for number in range(10)]
START_SECONDS = 120.0
STOP_SECONDS = 5.0
RESTART_SECONDS = 1.0  # Docker's restart policy waits for 0.1 s, and twice as long each time


@dataclass
class Client:
    """A client's process, begun anew whenever it ends, as Docker does it."""

    name: str
    network: BadNetwork
    ports: dict[str, int]
    process: subprocess.Popen[bytes] | None = None
    begun: int = 0
    ended: float = 0.0


@dataclass
class Loopback:
    """A server and three clients in `folder`; to be used in a `with` block, which ends them all."""

    folder: Path
    node: Node
    conditions: Conditions
    clients: list[Client] = field(default_factory=list)

    def __enter__(self) -> Loopback:
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._control, self._fleet, self._operations = free_ports(3)
            for number, name in enumerate(CLIENTS):
                network = stack.enter_context(BadNetwork(self._fleet, self.conditions, number))
                metrics, runtime = free_ports(2)
                ports = {"metrics": metrics, "runtime": runtime}
                self.clients.append(Client(name, network, ports))
            peers = [client.network.peer for client in self.clients]
            certificates.ensure(self.folder / "tls", peers)
            for client in self.clients:
                self._prepare(client)
            stack.callback(self._end_clients)
            self._start_server(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_server(self, stack: ExitStack) -> None:
        ports = map(str, (self._control, self._fleet, self._operations))
        program = [str(PROGRAMS / "native_server.py"), str(self.folder / "tls/server")]
        server = self._spawn("server", [*program, *ports], {})
        stack.callback(_end, server)
        deadline = time.monotonic() + START_SECONDS
        while not _listens(self._operations):
            if _has_ended(server) or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "server.log").read_text())
            time.sleep(0.2)

    def _prepare(self, client: Client) -> None:
        """Make what a client's container would hold, and what the kernel says in it."""
        folder = self.folder / client.name
        kernel = folder / "sys/fs/cgroup"
        kernel.mkdir(parents=True)
        (kernel / "memory.events").write_text("oom_kill 0\n")
        (folder / "ca.pem").write_bytes((self.folder / "tls/ca.pem").read_bytes())
        images = folder / "data" / DATA
        images.mkdir(parents=True)
        random = np.random.default_rng(0)
        for part in ("train", "test"):
            tensors = {
                "images": random.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8),
                "labels": random.integers(0, len(CLASSES), 16),
            }
            save_file(tensors, images / f"{part}.safetensors", {"classes": json.dumps(CLASSES)})

    def look_after(self) -> None:
        """Begin each client that is not there: for the first time, or because it ended."""
        now = time.monotonic()
        for client in self.clients:
            if client.process is not None:
                if not _has_ended(client.process):
                    continue
                _end(client.process)  # what it left behind
                client.process, client.ended = None, now
            if now - client.ended >= RESTART_SECONDS:
                self._start(client)

    def _start(self, client: Client) -> None:
        folder = self.folder / client.name
        environment = {
            "FEDBENCH_CLIENT": client.name,
            "FEDBENCH_DEVICE": "laptop",
            "FEDBENCH_SERVER": f"{client.network.peer}:{self._fleet}",
            "FEDBENCH_METRICS_PORT": str(client.ports["metrics"]),
        }
        program = [str(PROGRAMS / "native_client.py"), str(folder)]
        if self.node == "stock":
            program = self._supernode(client, environment["FEDBENCH_SERVER"])
        client.process = self._spawn(client.name, program, environment)
        client.begun += 1

    def _supernode(self, client: Client, server: str) -> list[str]:
        """Return the command of Flower's own node, with nothing of fedbench around it."""
        folder = self.folder / client.name
        facts = {"client": client.name, "device": "laptop", "data": folder / "data"}
        return [
            str(Path(sys.executable).parent / "flower-supernode"),
            *("--superlink", server),
            *("--root-certificates", str(folder / "ca.pem")),
            *("--node-config", " ".join(f'{key}="{value}"' for key, value in facts.items())),
            *("--port", str(client.ports["runtime"])),
        ]

    def _end_clients(self) -> None:
        for client in self.clients:
            if client.process is not None:
                client.process.terminate()  # all of them, before the first is waited for
        for client in self.clients:
            if client.process is not None:
                _end(client.process)

    def _spawn(
        self, name: str, program: list[str], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        folder = self.folder / name
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        environment = environment | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *program],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )

    def launch(self, **experiment: Any) -> Run:
        """Start a run; it goes on by itself."""
        profile = Profile(name="loopback", machines=(Machine(device="laptop", count=3),))
        inputs = RunInputs(clients=len(CLIENTS), classes=len(CLASSES), data=DATA)
        chosen = Experiment.model_validate({"name": "lossy", **experiment})
        run = RunStore(self.folder / "runs").create(chosen, profile, inputs)
        argv = ["-m", "fedbench.server.launch", str(run.path)]
        port = ["--operations-port", str(self._operations)]
        self._stack.callback(_end, self._spawn("launch", [*argv, *port], {}))
        return run


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Say whether it ended; it is not reaped, so that its number stays its own."""
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return process.returncode is not None or os.waitid(os.P_PID, process.pid, how) is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it began, which are one session."""
    if process.returncode is not None:
        return
    if not _has_ended(process):
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while not _has_ended(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
