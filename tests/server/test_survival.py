"""A server that is killed again and again, as a whole: the run goes on and loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from forks import Forked
from native import CLASSES, ROOT, environment, free_ports, until, write_partition

from fedbench.config import Experiment, Machine, Profile
from fedbench.records.facts import RunInputs
from fedbench.records.runs import Run, RunStore

pytestmark = pytest.mark.processes

SAMPLES = {"one": 16, "two": 96}  # the second still trains when the first is done
ROUNDS = 6
LONG = 120.0  # seconds
KILLS = {"trained:2": 1, "aggregation:3": 2, "checkpoint:4": 3, "recorded:5": 5}
"""The points at which the server is killed, and the last complete round then."""


class Survivor:
    """A server that is started again whenever it dies, and two clients."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self._folder = folder
        self._certificates = certificates
        self._control, self._fleet, self.operations, *metrics = free_ports(5)
        self._metrics = dict(zip(SAMPLES, metrics, strict=True))
        self.runs = folder / "runs"
        self.clients: dict[str, Forked] = {}
        self._processes: list[Forked] = []

    def start(self) -> None:
        self.runs.mkdir()
        ports = map(str, (self._control, self._fleet, self.operations))
        argv = [str(ROOT / "tests/lib/mortal_server.py"), str(self.runs)]
        self._docker = self.spawn("server", *argv, str(self._certificates / "server"), *ports)
        for name in SAMPLES:
            self._start_client(name)
        until(lambda: all((self._folder / name / "ready").exists() for name in SAMPLES), LONG)

    def _start_client(self, name: str) -> None:
        folder = self._folder / name
        write_partition(folder / "data" / "k", SAMPLES[name], 8, SAMPLES[name])
        (folder / "ca.pem").write_bytes((self._certificates / "ca.pem").read_bytes())
        settings = {"CLIENT": name, "DEVICE": "laptop", "SERVER": f"localhost:{self._fleet}"}
        settings["METRICS_PORT"] = str(self._metrics[name])
        variables = {f"FEDBENCH_{key}": value for key, value in settings.items()}
        program = str(ROOT / "tests/client/native_client.py")
        self.clients[name] = self.spawn(name, program, str(folder), **variables)

    def spawn(self, name: str, *argv: str, **settings: str) -> Forked:
        around = environment(self._folder, OMP_NUM_THREADS="1", **settings)
        process = Forked(list(argv), around, self._folder / f"{name}.log", self._folder)
        self._processes.append(process)
        return process

    def execute(self, **experiment: Any) -> Run:
        """Execute a run to its end."""
        run = self.launch(**experiment)
        self.finish(run)
        return run

    def finish(self, run: Run) -> None:
        """Wait for a run's end, and for that of whoever asked for it."""
        until(run.has_ended, 300)
        until(lambda: not (run.path / "executing.json").exists(), LONG)
        self._processes[-1].wait(30)

    def launch(self, **experiment: Any) -> Run:
        """Let the server execute a run."""
        chosen = Experiment.model_validate(
            {"name": "k", "model": "mobilenet_v3_small", "batch_size": 16, "seed": 7} | experiment
        )
        inputs = RunInputs(clients=len(SAMPLES), classes=len(CLASSES), data="k")
        profile = Profile(name="native", machines=(Machine(device="laptop", count=2),))
        run = RunStore(self.runs).create(chosen, profile, inputs)
        argv = ["-m", "fedbench.server.launch", str(run.path)]
        self.spawn("launch", *argv, "--operations-port", str(self.operations))
        return run

    def server(self) -> psutil.Process:
        """The server that is there now."""
        (server,) = psutil.Process(self._docker.pid).children()
        return server

    def workers(self) -> dict[str, list[int]]:
        """The processes that train."""
        return {
            name: [child.pid for child in psutil.Process(client.pid).children()]
            for name, client in self.clients.items()
        }

    def log(self) -> str:
        return (self._folder / "server.log").read_text()[-5_000:]

    def end(self) -> None:
        alive = [process for process in self._processes if process.poll() is None]
        for process in alive:
            process.terminate()
        assert [process.wait(30) for process in alive] == [0] * len(alive)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Survivor]:
    survivor = Survivor(tmp_path_factory.mktemp("survival"), certificates)
    try:
        survivor.start()
        yield survivor
    finally:
        survivor.end()


def restarts(run: Run) -> list[tuple[int, str]]:
    events = [event for event in run.events() if event["event"] == "restarted"]
    return [(event["after_round"], event["reason"]) for event in events]


def test_a_server_killed_at_any_moment_loses_nothing(federation: Survivor) -> None:
    undisturbed = federation.execute(rounds=ROUNDS)
    workers = federation.workers()
    (federation.runs / "pending").write_text(" ".join(KILLS))
    killed = federation.execute(rounds=ROUNDS)

    assert (federation.runs / "pending").read_text() == "", "it was not killed each time"
    for run in (undisturbed, killed):
        assert run.summary().status == "finished", federation.log()
        assert [record.round for record in run.rounds()] == list(range(1, ROUNDS + 1))
        for record in run.rounds():
            assert [client.error for client in record.clients] == [None, None]
    assert restarts(undisturbed) == []
    assert restarts(killed) == [(last, "the server's process died") for last in KILLS.values()]
    for name in ("checkpoint.safetensors", "model.safetensors"):
        left, right = (_weights(run.path / name) for run in (undisturbed, killed))
        assert left == right, f"{name} is another"
    assert federation.workers() == workers, "the clients' processes stay"


def _weights(path: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file  # noqa: PLC0415

    return {name: array.tobytes() for name, array in load_file(path).items()}


def _inside(federation: Survivor) -> dict[str, psutil.Process]:
    """The executor, and the ServerApp that it forked."""
    (executor,) = [
        child
        for child in federation.server().children()
        if "resource_tracker" not in " ".join(child.cmdline())
    ]
    (server_app,) = executor.children()
    return {"executor": executor, "ServerApp": server_app}


def test_an_executor_and_a_server_app_that_are_killed_are_started_again(
    federation: Survivor,
) -> None:
    before = federation.server()
    run = federation.launch(rounds=5, local_epochs=2)
    for number, name in ((1, "ServerApp"), (2, "executor")):
        until(lambda number=number: len(run.rounds()) >= number, LONG)
        _inside(federation)[name].kill()
        until(lambda number=number: len(restarts(run)) == number, LONG)
    federation.finish(run)

    assert run.summary().status == "finished", federation.log()
    assert [record.round for record in run.rounds()] == [1, 2, 3, 4, 5]
    assert [reason for _, reason in restarts(run)] == [
        "the ServerApp died (SIGKILL)",
        "the executor died (SIGKILL)",
    ]
    assert federation.server() == before


def test_a_second_order_to_run_is_refused(federation: Survivor) -> None:
    run = federation.launch(rounds=50)
    until(run.rounds, LONG)

    url = f"http://127.0.0.1:{federation.operations}/runs"
    answer = httpx.post(url, json={"folder": str(federation.runs / "other")})
    run.request_stop()

    assert answer.status_code == 409
    assert answer.json() == {"error": f"run {run.id} is in progress"}
    federation.finish(run)
    assert run.state() == "interrupted"
