"""A real federation without containers: guards what fedbench uses of Flower's internals.

On an upgrade of flwr, tests/flower/test_internals.py says what moved, and these tests what behaves
otherwise: `make test-flower`.
"""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from forks import Forked
from native import CLASSES, environment, free_ports, until, write_partition
from safetensors.torch import load_file

from fedbench.config import Experiment, Machine, Profile
from fedbench.engines.containers.runtime import certificates
from fedbench.flower.fleet import RunOverError, connect
from fedbench.learning import flat, models
from fedbench.records import ClientRound, RoundRecord, Summary
from fedbench.records.facts import RunInputs
from fedbench.records.runs import Run, RunStore
from fedbench.server.registry import HUNG_UP
from fedbench.telemetry.cgroup import Cgroup

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent
PROFILE = Profile(name="native", machines=(Machine(device="laptop", count=3),))
# Training images of each client by data key; MobileNetV3-Small takes about 2 ms for one.
SAMPLES = {
    "even": {"one": 64, "two": 32},
    "corrupt": {"one": 32, "two": 32},
    "uneven": {"one": 32, "two": 256, "three": 256},
    "hostile": {"one": 64, "four": 32},
    "honest": {"one": 64},
}
MODEL = "mobilenet_v3_small"
MODEL_BYTES = 4 * flat.to_flat(models.build(MODEL)).size


@dataclass
class Federation:
    """One server and its clients, as processes."""

    folder: Path
    control: int
    fleet: int
    operations: int
    metrics: dict[str, int]
    stack: ExitStack
    processes: dict[str, Forked] = field(default_factory=dict)

    def spawn(self, name: str, *argv: str, **settings: str) -> Forked:
        """A Python process that is gone when the tests are over, with its output in a log."""
        around = environment(self.folder / "home", **settings)
        process = Forked(list(argv), around, self.folder / f"{name}.log", self.folder)
        self.stack.callback(_end, process)
        self.processes[name] = process
        return process

    def start_server(self) -> None:
        ports = map(str, (self.control, self.fleet, self.operations))
        self.spawn(
            "server", str(HERE / "native_server.py"), str(self.folder / "tls/server"), *ports
        )

    def prepare(self, name: str) -> None:
        """A client's folder, with what the kernel says in its container."""
        cgroup = self.folder / name / "sys/fs/cgroup"
        cgroup.mkdir(parents=True)
        (cgroup / "memory.events").write_text("oom_kill 0\n")
        (cgroup / "memory.max").write_text(f"{400 * 2**20}\n")
        (self.folder / name / "ca.pem").write_bytes((self.folder / "tls/ca.pem").read_bytes())

    def start_client(self, name: str, program: str = "native_client.py") -> None:
        folder = self.folder / name
        settings = {"CLIENT": name, "DEVICE": "laptop", "SERVER": f"localhost:{self.fleet}"}
        settings["METRICS_PORT"] = str(self.metrics[name])
        variables = {f"FEDBENCH_{key}": value for key, value in settings.items()}
        self.spawn(name, str(HERE / program), str(folder), **variables)

    def worker(self, name: str) -> int:
        """The process that trains, of the two that a client has."""
        pid = self.processes[name].pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def run_out_of_memory(self, name: str) -> None:
        """What the kernel does then: it notes down the kill, and kills."""
        (self.folder / name / "sys/fs/cgroup/memory.events").write_text("oom_kill 1\n")
        os.kill(self.worker(name), signal.SIGKILL)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def create(self, data: str, **experiment: Any) -> Run:
        """A run's folder, as the host makes it."""
        chosen = Experiment.model_validate(
            {"name": data, "model": MODEL, "batch_size": 16} | experiment
        )
        inputs = RunInputs(clients=len(SAMPLES[data]), classes=len(CLASSES), data=data)
        return RunStore(self.folder / "runs").create(chosen, PROFILE, inputs)

    def launch(self, run: Run) -> Forked:
        argv = ["-m", "fedbench.server.launch", str(run.path)]
        return self.spawn(f"launch-{run.id}", *argv, "--operations-port", str(self.operations))

    def finish(self, run: Run) -> Summary:
        """The run's summary, once its process ended well."""
        name = f"launch-{run.id}"
        code = self.processes[name].wait(60)
        assert code == 0, self.log(name) + self.log("server")
        return run.summary()

    def get(self, url: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{url}")

    def training(self, name: str) -> bool:
        """Whether the client says that it trains, where Prometheus would look."""
        metrics = self.get(f"{self.metrics[name]}/metrics").text
        return 'fedbench_client_phase{phase="training"} 1.0' in metrics


def _end(process: Forked) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def events(run: Run, name: str) -> list[dict[str, Any]]:
    return [event for event in run.events() if event["event"] == name]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    (folder / "home").mkdir()
    certificates.ensure(folder / "tls")
    for key, clients in SAMPLES.items():
        for client, samples in clients.items():
            write_partition(folder / client / "data" / key, samples, 16, samples)
    (folder / "two/data/corrupt/test.safetensors").write_bytes(b"not safetensors")
    control, fleet, operations, hostile, *rest = free_ports(7)
    with ExitStack() as stack:
        metrics = dict(zip(("one", "two", "three"), rest, strict=True))
        federation = Federation(folder, control, fleet, operations, metrics, stack)
        federation.start_server()
        for name in metrics:
            federation.prepare(name)
            federation.start_client(name)
        until(lambda: all((folder / name / "ready").exists() for name in metrics))
        metrics["four"] = hostile  # of which only its test knows
        yield federation
    killed = [name for name, p in federation.processes.items() if p.returncode == -signal.SIGKILL]
    assert killed in ([], ["two"]), "they did not end when they were told to"


@pytest.fixture(scope="module")
def finished(federation: Federation) -> tuple[Run, Summary]:
    """A run of two rounds on two clients, from its beginning to its end."""
    run = federation.create("even", rounds=2, local_epochs=2)
    federation.launch(run)
    return run, federation.finish(run)


def clients(record: RoundRecord) -> dict[str, ClientRound]:
    return {client.client: client for client in record.clients}


def test_a_run_ends_with_all_figures(finished: tuple[Run, Summary]) -> None:
    _, summary = finished

    assert summary.status == "finished"
    assert [record.round for record in summary.rounds] == [1, 2]
    for record in summary.rounds:
        assert record.server_accuracy is not None
        assert 0 <= record.server_accuracy <= 1
        assert record.server_loss
        assert record.server_epoch_seconds
        assert 0 < record.aggregate_seconds < record.overhead_seconds < record.duration_seconds
        assert record.parts is not None
        parts = record.parts.model_dump()
        assert all(seconds > 0 for seconds in parts.values()), parts
        assert sum(parts.values()) == pytest.approx(record.overhead_seconds)
        assert {name: client.samples for name, client in clients(record).items()} == SAMPLES["even"]
        for client in record.clients:
            figures = client.model_dump()
            for absent in (
                "error", "missing", "target_epoch_seconds", "emulation_error", "not_held",
                "energy_idle_joules", "energy_busy_joules",
            ):  # fmt: skip
                assert figures.pop(absent) is None  # nothing is emulated
            assert None not in figures.values()
            assert len(client.epoch_seconds) == 2
            assert client.peak_memory_bytes or not Cgroup().memory().peak


def test_a_model_goes_up_once_a_round_and_down_once_more_at_the_start(
    finished: tuple[Run, Summary],
) -> None:
    first, second = finished[1].rounds

    for record, received in ((first, 2), (second, 1)):
        for client in record.clients:
            assert client.bytes_sent == pytest.approx(MODEL_BYTES, abs=10_000)
            assert client.bytes_received == pytest.approx(received * MODEL_BYTES, abs=10_000)


def test_the_final_model_loads_by_name(finished: tuple[Run, Summary]) -> None:
    run, _ = finished
    model = models.build(MODEL, seed=99)

    missing, unexpected = model.load_state_dict(
        load_file(run.path / "model.safetensors"), strict=False
    )

    assert unexpected == []
    assert all(name.endswith("num_batches_tracked") for name in missing)
    checkpoint = load_file(run.path / "checkpoint.safetensors")["weights"].numpy()
    assert np.array_equal(flat.to_flat(model), checkpoint)


def test_what_happened_is_where_prometheus_looks(
    federation: Federation, finished: tuple[Run, Summary]
) -> None:
    run, _ = finished
    server = federation.get(f"{federation.operations}/metrics").text
    targets = federation.get(f"{federation.operations}/targets").json()

    assert f'fedbench_round{{run="{run.id}"}} 2.0' in server
    assert f'fedbench_run_phase{{phase="finished",run="{run.id}"}} 1.0' in server
    assert [target["targets"] for target in targets] == [
        [f"127.0.0.1:{federation.metrics[name]}"] for name in ("one", "three", "two")
    ]
    client = federation.get(f"{federation.metrics['one']}/metrics").text
    assert f"fedbench_trained_samples_total {2 * 2 * 64:.1f}" in client
    assert "fedbench_client_connected 1.0" in client
    # The last messages of a run, an evaluation and its reply, do not hide the models before them.
    last = dict(re.findall(r'transfer_last_bytes{direction="(\w+)"} (\S+)', client))
    assert last.keys() == {"received", "sent"}
    assert all(float(size) >= MODEL_BYTES for size in last.values())


def test_devices_reach_superlinks_fleet_routes_only(federation: Federation) -> None:
    context = ssl.create_default_context(cafile=str(federation.folder / "tls/ca.pem"))
    route = "/v1/control/list-runs"

    inside = httpx.post(f"http://127.0.0.1:{federation.control}{route}")
    outside = httpx.post(f"https://localhost:{federation.fleet}{route}", verify=context)

    assert inside.status_code not in (404, 405)
    assert outside.status_code == 404


def test_a_node_can_tell_that_a_run_is_over(
    federation: Federation, finished: tuple[Run, Summary]
) -> None:
    (run_id,) = set(re.findall(r"train message \(Flower's run (\d+)\)", federation.log("one")))
    certificate = (federation.folder / "tls/ca.pem").read_bytes()

    with connect(f"localhost:{federation.fleet}", certificate) as node:
        assert node.poll(()) is None
        with pytest.raises(RunOverError):
            node.check(int(run_id), "0" * 64)


def test_a_client_without_the_data_is_left_out(finished: tuple[Run, Summary]) -> None:
    run, summary = finished

    assert [event["client"] for event in events(run, "left_out")] == ["three"]
    assert all(clients(record).keys() == {"one", "two"} for record in summary.rounds)


def test_a_seed_gives_the_weights_and_an_exception_is_in_the_record(
    federation: Federation,
) -> None:
    run = federation.create("corrupt", rounds=1, seed=5, learning_rate=1e-30)
    federation.launch(run)
    summary = federation.finish(run)

    assert summary.status == "finished"
    both = clients(summary.rounds[0])
    assert both["one"].error is None
    assert both["two"].error is not None
    assert both["two"].error.startswith("evaluate: ValueError: ")
    assert "test.safetensors: cannot be read as safetensors" in both["two"].error
    assert both["two"].samples == 32
    assert summary.rounds[0].server_accuracy == both["one"].server_accuracy
    assert [event["client"] for event in events(run, "failed")] == ["two"]

    trained = load_file(run.path / "model.safetensors")
    for name, drawn in models.build(MODEL, seed=5).named_parameters():
        torch.testing.assert_close(trained[name], drawn.detach(), rtol=1e-6, atol=1e-9)


def test_a_run_that_was_stopped_goes_on_where_it_was(federation: Federation) -> None:
    run = federation.create("uneven", rounds=2)
    federation.launch(run)
    until(lambda: len(events(run, "round")) == 2)
    run.request_stop()
    stopped = federation.finish(run)

    assert stopped.status == "interrupted"
    assert [record.round for record in stopped.rounds] == [1]

    run.prepare_resume()
    federation.launch(run)
    resumed = federation.finish(run)

    assert resumed.status == "finished"
    assert [record.round for record in resumed.rounds] == [1, 2]
    assert resumed.rounds[0] == stopped.rounds[0]
    assert [event["after_round"] for event in events(run, "started")] == [0, 1]
    assert all(client.error is None for client in resumed.rounds[1].clients)


def test_a_client_killed_for_memory_is_in_the_record_and_comes_back(federation: Federation) -> None:
    reason = "killed for memory: its limit is 400 MiB (device laptop)"
    # So long a round that the client is back before the next.
    run = federation.create("uneven", model="mobilenet_v2", rounds=2, local_epochs=6)
    federation.launch(run)
    until(lambda: federation.training("two") and federation.training("three"))
    federation.run_out_of_memory("two")
    summary = federation.finish(run)

    first, second = (clients(record) for record in summary.rounds)
    assert first["two"] == ClientRound(
        client="two", device="laptop", error=f"train: {reason}", missing="out_of_memory"
    )
    assert [first[name].error for name in ("one", "three")] == [None, None]
    # It was known before one of as many images had trained, not a minute later.
    (failed,), others = events(run, "failed"), events(run, "trained")
    assert failed["time"] < next(e["time"] for e in others if e["client"] == "three")
    assert failed["reason"] == reason
    assert second["two"].error is None


def test_a_round_goes_on_without_those_that_leave(federation: Federation) -> None:
    """One is told to stop and signs off, another is killed with all its processes.

    Flower alone believes in a dead node until two heartbeats of 30 s were missed.
    """
    run = federation.create("uneven", rounds=1, local_epochs=8)
    federation.launch(run)
    until(lambda: federation.training("two") and federation.training("three"))
    worker = federation.worker("two")
    federation.processes["two"].kill()
    os.kill(worker, signal.SIGKILL)
    federation.processes["three"].terminate()

    assert federation.processes["three"].wait(20) == 0
    assert not (federation.folder / "three/ready").exists()
    targets = federation.get(f"{federation.operations}/targets").json()
    assert "three" not in [target["labels"]["client"] for target in targets]
    summary = federation.finish(run)
    assert summary.status == "finished"
    all_three = clients(summary.rounds[0])
    assert all_three["one"].error is None
    assert all_three["two"] == ClientRound(
        client="two", device="laptop", error=f"train: {HUNG_UP}", missing="crashed"
    )
    assert all_three["three"].error is not None
    assert all_three["three"].error.startswith("train: ")
    assert "timeout" not in all_three["three"].error
    assert summary.rounds[0].server_accuracy == all_three["one"].server_accuracy


def test_bad_updates_are_refused_and_the_model_is_that_of_the_honest(
    federation: Federation,
) -> None:
    """First a NaN, then a bundle that lacks an object, then good work."""
    federation.prepare("four")
    federation.start_client("four", "hostile_client.py")
    until((federation.folder / "four/ready").exists)

    hostile, honest = (federation.create(name, rounds=2) for name in ("hostile", "honest"))
    federation.launch(hostile)
    summary = federation.finish(hostile)
    federation.launch(honest)
    federation.finish(honest)

    assert summary.status == "finished"
    errors = [clients(record)["four"].error for record in summary.rounds]
    size = MODEL_BYTES // 4
    assert errors == [
        f"train: refused update: 1 of its model's {size} numbers are NaN or infinite",
        "train: refused update: 6 objects came, expected 7",
    ]
    told = [event["reason"] for event in events(hostile, "failed") if event["client"] == "four"]
    assert [f"train: {reason}" for reason in told] == errors
    assert "refused: 400 6 objects came, expected 7" in federation.log("four")
    assert all(clients(record)["one"].error is None for record in summary.rounds)
    with_it, without = (load_file(run.path / "checkpoint.safetensors") for run in (hostile, honest))
    assert with_it.keys() == without.keys()
    assert all(
        with_it[name].numpy().tobytes() == without[name].numpy().tobytes() for name in without
    )

    again = federation.create("hostile", rounds=1)
    federation.launch(again)
    (record,) = federation.finish(again).rounds
    assert clients(record)["four"].error is None
    assert clients(record)["four"].samples == 32
