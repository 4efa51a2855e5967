"""A run in memory is an ordinary run: same records, same model, resumed and stopped alike."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import Forked
from native import until, write_partition
from safetensors.numpy import load_file

from fedbench.config import Experiment
from fedbench.engines.in_process.workers import worker_count
from fedbench.records import Summary, read_lines
from fedbench.server.checkpoint import RunFolder

pytestmark = pytest.mark.processes

KEY = "random-1"
IN_TURN = Path(__file__).with_name("in_turn.py")
Prepare = Callable[..., Path]


def preparing(tmp_path: Path) -> Prepare:
    """What prepares a run's folder as the host does, for two clients."""

    def prepared(name: str = "run", workers: int = 0, **experiment: Any) -> Path:
        clients = []
        for seed, client in enumerate(("a", "b")):
            folder = tmp_path / "data" / client
            if not folder.exists():
                write_partition(folder / KEY, 32 + 16 * seed, 16, seed)
            clients.append({"name": client, "device": "laptop", "data": str(folder)})
        folder = tmp_path / name
        folder.mkdir()
        defaults = {"name": "t", "model": "mobilenet_v3_small", "rounds": 2, "batch_size": 16}
        chosen = Experiment.model_validate(defaults | experiment)
        (folder / "experiment.json").write_text(chosen.model_dump_json())
        facts = {
            "run": name, "experiment": "t", "profile": "p", "created": "2026-11-24T00:00:00+00:00",
            "clients": 2, "classes": 10, "data": KEY,
            "engine": {"clients": clients, "workers": workers, "samples": 80},
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(facts))
        return folder

    return prepared


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    return preparing(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds by two workers, to its end."""
    folder = preparing(tmp_path_factory.mktemp("whole"))(workers=2)
    assert engine(folder).wait(120) == 0
    return folder


# Stands where prometheus_client would be found; an import of it, in whatever worker, leaves a mark.
DECOY = """
from pathlib import Path

Path(__file__).with_name("imported").touch()
raise ImportError
"""


def engine(*folders: Path) -> Forked:
    decoy = folders[0].parent / "decoy"
    decoy.mkdir(exist_ok=True)
    (decoy / "prometheus_client.py").write_text(DECOY)
    path = os.pathsep.join(filter(None, (str(decoy), os.environ.get("PYTHONPATH"))))
    # Sums over two threads are other sums than those over one.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return Forked([str(IN_TURN), *map(str, folders)], environment)


def summary(folder: Path) -> Summary:
    return Summary.model_validate_json((folder / "summary.json").read_bytes())


def weights(folder: Path) -> np.ndarray:
    model: np.ndarray = load_file(folder / "checkpoint.safetensors")["weights"]
    return model


def test_a_run_leaves_what_any_run_leaves(whole: Path) -> None:
    result = summary(whole)
    assert (result.status, len(result.rounds)) == ("finished", 2)
    assert (whole / "model.safetensors").exists()
    first, last = result.rounds
    assert first.confusion is None
    assert last.confusion
    assert sum(map(sum, last.confusion)) == 2 * 16
    for record in result.rounds:
        assert record.server_accuracy is not None
        assert [(c.client, c.samples, c.error) for c in record.clients] == [
            ("a", 32, None), ("b", 48, None),
        ]  # fmt: skip
        # Nobody has a container of its own here.
        assert all(c.cpu_seconds is c.peak_memory_bytes is None for c in record.clients)
        assert all(c.target_epoch_seconds is None for c in record.clients)


def test_a_run_counts_without_prometheus_client(whole: Path) -> None:
    assert (whole.parent / "decoy/prometheus_client.py").exists()
    assert not (whole.parent / "decoy/imported").exists()


@pytest.mark.parametrize(
    ("clients", "cores", "gpu", "workers"),
    [(2, 2, False, 2), (3, 2, False, 3), (4, 2, False, 2), (30, 8, False, 8), (3, 16, True, 1)],
)
def test_no_core_is_idle_while_the_last_client_trains(
    clients: int, cores: int, gpu: bool, workers: int
) -> None:
    assert worker_count(clients, cores, gpu=gpu) == workers


def test_the_number_of_workers_changes_nothing_and_resuming_neither(
    prepare: Prepare, whole: Path
) -> None:
    """A run goes on in another process than the one that began it."""
    inline, halved = prepare("inline", 0), prepare("halved", 0, rounds=1)
    assert engine(halved).wait(120) == 0
    chosen = json.loads((halved / "experiment.json").read_text())
    (halved / "experiment.json").write_text(json.dumps(chosen | {"rounds": 2}))
    assert engine(inline, halved).wait(120) == 0
    assert np.array_equal(weights(whole), weights(inline))
    assert [record.round for record in summary(halved).rounds] == [1, 2]
    assert np.array_equal(weights(whole), weights(halved))


def test_it_stops_amid_a_round_and_says_what_is_done_meanwhile(prepare: Prepare) -> None:
    folder = prepare(workers=1, local_epochs=10_000)
    process = engine(folder)
    until(lambda: events(folder, "progress"), 120)
    assert 0 < events(folder, "progress")[0]["images"] < events(folder, "progress")[0]["of"]
    (folder / "stop").touch()
    assert process.wait(30) == 0
    assert summary(folder).status == "interrupted"


def test_its_workers_end_with_it(prepare: Prepare) -> None:
    folder = prepare(workers=2, local_epochs=10_000)
    process = engine(folder)
    until(lambda: events(folder, "round"), 120)
    time.sleep(1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    until(lambda: not any(alive(int(child)) for child in children), 30)


def test_a_client_that_fails_is_in_the_record(prepare: Prepare, tmp_path: Path) -> None:
    folder = prepare(rounds=1)
    (tmp_path / "data/a" / KEY / "train.safetensors").write_bytes(b"half")
    process = engine(folder)
    until(lambda: events(folder, "unidentified"), 120)
    assert "train.safetensors: cannot be read" in events(folder, "unidentified")[0]["reason"]
    RunFolder(folder)
    (folder / "stop").touch()
    assert process.wait(30) == 0


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read_lines(folder / "events.jsonl") if event["event"] == name]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
