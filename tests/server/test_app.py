from __future__ import annotations

import errno
import importlib
import json
import math
import os
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from safetensors.numpy import load_file

from fedbench.config import Experiment, Machine, Profile
from fedbench.errors import DamagedFileError
from fedbench.learning import flat, models
from fedbench.learning.user_models import ModelError
from fedbench.records.facts import RunInputs
from fedbench.records.rounds import TrainWork
from fedbench.records.runs import Run, RunStore
from fedbench.server import grid as grid_module
from fedbench.server.app import _tell, _why, app
from fedbench.server.checkpoint import RunFolder
from fedbench.server.rounds import TooFewTrainedError
from fedbench.wire import ClientTask, EvaluateReply, Work, work_record

NOBODY = "http://127.0.0.1:1"  # no metrics: a run needs none
# A model that diverged says so.
TRAINED = {"epoch_seconds": [0.5], "local_loss": math.nan, "local_accuracy": 0.25}
EVALUATED = {"evaluate_seconds": 0.5, "server_loss": 2.0, "server_accuracy": 0.25}
PROFILE = Profile(name="test", machines=(Machine(device="laptop", count=2),))


def untrained(seed: int) -> np.ndarray:
    return flat.to_flat(models.build("mobilenet_v2", seed=seed))


def work(done: Work) -> ConfigRecord:
    return ConfigRecord(work_record(done))


class Clients:
    """Two clients that answer whenever the server looks whether to stop."""

    def __init__(self, superlink: Any) -> None:
        self._superlink = superlink
        self._names = {superlink.join(): "laptop-1", superlink.join(): "laptop-2"}
        self.tasks: list[ClientTask] = []
        self.failing: Callable[[int], bool] = lambda _: False
        """Whether they fail in a round."""
        self.before_answering: Callable[[], object] = lambda: None

    def answer(self) -> None:
        self.before_answering()
        for node, name in self._names.items():
            while self._superlink.waiting(node):
                self._superlink.answer(node, lambda message, name=name: self._reply(name, message))

    def _reply(self, name: str, message: Message) -> Message:
        content = RecordDict()
        match message.metadata.message_type:
            case "query":
                identity = {"client": name, "device": "laptop", "samples": 5}
                content["client"] = ConfigRecord(identity)
            case "train":
                self.tasks.append(task := ClientTask.of(message.content["task"]))
                if self.failing(task.round):
                    return Message(Error(code=0, reason="no room"), reply_to=message)
                weights = message.content["arrays"]["weights"].numpy() + np.float32(1)
                content["arrays"] = ArrayRecord({"weights": Array(weights)})
                # 4 of 8: a power of two, so that the mean of equal weights is exact.
                content["work"] = work(TrainWork(samples=4, **TRAINED))
            case "evaluate":
                content["work"] = work(EvaluateReply(test_samples=5, **EVALUATED))
        return Message(content, reply_to=message)


@pytest.fixture
def clients(superlink: Any, monkeypatch: pytest.MonkeyPatch) -> Clients:
    clients = Clients(superlink)
    asked_to_stop = RunFolder.stop_requested

    def look(folder: RunFolder) -> bool:
        clients.answer()
        return asked_to_stop(folder)

    monkeypatch.setattr(grid_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(RunFolder, "stop_requested", look)
    return clients


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


def create(store: RunStore, **experiment: Any) -> Run:
    chosen = Experiment.model_validate({"name": "test", "seed": 5, "rounds": 2} | experiment)
    return store.create(chosen, PROFILE, RunInputs(clients=2, classes=10, data="digits-1"))


def serve(superlink: Any, run: Run) -> None:
    config = {"folder": str(run.path), "operations": NOBODY}
    context = Context(
        run_id=superlink.run_id, node_id=1, node_config={}, state=RecordDict(), run_config=config
    )
    app(superlink.grid, context)


def result(run: Run) -> np.ndarray:
    return flat.load(run.path / "model.safetensors", models.build("mobilenet_v2"))


def events(run: Run) -> list[str]:
    return [event["event"] for event in run.events()]


def test_a_run_goes_from_its_folder_to_its_model(
    superlink: Any, clients: Clients, store: RunStore
) -> None:
    run = create(
        store, batch_size=16, local_epochs=3, learning_rate=0.01, optimizer="sgd",
        weight_decay=5e-4, schedule="cosine", augmentation="flip-crop", label_smoothing=0.1,
        stem_stride=1,
    )  # fmt: skip

    serve(superlink, run)

    assert np.array_equal(result(run), untrained(5) + np.float32(1) + np.float32(1))
    assert run.summary().status == "finished"
    assert [record.round for record in run.summary().rounds] == [1, 2]
    assert run.summary().rounds[1].server_loss == 2.0
    one_round = ["round", "trained", "trained", "evaluated", "evaluated", "recorded"]
    assert events(run) == ["started", *one_round, *one_round, "finished"]
    first, *_, last = clients.tasks
    assert (first.run, first.round, first.classes, first.data) == (run.id, 1, 10, "digits-1")
    assert first.pace is None
    assert first.experiment == run.experiment()
    assert last.round == 2


def test_a_run_starts_from_the_weights_it_was_given(
    superlink: Any, clients: Clients, store: RunStore
) -> None:
    run = create(store, rounds=1)
    model = models.build("mobilenet_v2", seed=9)
    (run.path / "initial.safetensors").write_bytes(flat.dump(flat.to_flat(model), model))

    serve(superlink, run)

    assert np.array_equal(result(run), untrained(9) + np.float32(1))


@pytest.mark.parametrize(
    ("name", "classes", "why"),
    [
        ("mobilenet_v2", 7, "classifier.1.weight has shape [7, 1280], expected [10, 1280]"),
        ("mobilenet_v3_small", 10, "classifier.0.bias is not in the model"),
        ("sample:small_cnn", 10, "0.weight is not in the model"),
    ],
)
def test_weights_of_another_model_are_refused(
    name: str, classes: int, why: str, superlink: Any, store: RunStore, tmp_path: Path
) -> None:
    model = models.build(name, classes)
    (other := tmp_path / "other.safetensors").write_bytes(flat.dump(flat.to_flat(model), model))
    run = create(store, initial_weights=str(other))
    file = run.path / "initial.safetensors"

    with pytest.raises(ValueError, match="initial_weights"):
        serve(superlink, run)

    assert run.summary().error == (
        f"ValueError: initial_weights: {other} is not of mobilenet_v2: {file}: {why}"
    )


def test_a_model_that_is_not_there_is_in_the_summary(
    superlink: Any, store: RunStore, own_models: Path
) -> None:
    run = create(store, model="mine:net")

    with pytest.raises(ModelError, match="model mine:net"):
        serve(superlink, run)

    assert run.summary().error == (
        "ModelError: model mine:net: no file models/mine.py; there are none"
    )


def test_a_run_that_was_stopped_goes_on(superlink: Any, clients: Clients, store: RunStore) -> None:
    run = create(store, rounds=3)

    def stop_in_round_two() -> None:
        if events(run).count("round") == 2:
            run.request_stop()

    clients.before_answering = stop_in_round_two
    serve(superlink, run)

    assert run.summary().status == "interrupted"
    assert [record.round for record in run.summary().rounds] == [1]
    assert not (run.path / "model.safetensors").exists()

    clients.before_answering = lambda: None
    run.prepare_resume()
    serve(superlink, run)

    assert run.summary().status == "finished"
    assert [record.round for record in run.summary().rounds] == [1, 2, 3]
    np.testing.assert_allclose(result(run), untrained(5) + 3, rtol=0, atol=1e-5)


def test_momentum_carries_over_a_stop(superlink: Any, clients: Clients, store: RunStore) -> None:
    run = create(store, rounds=3, server_momentum=0.5, batch_norm="pooled")

    def stop_in_round_three() -> None:
        if events(run).count("round") == 3:
            run.request_stop()

    clients.before_answering = stop_in_round_three
    serve(superlink, run)
    clients.before_answering = lambda: None
    run.prepare_resume()
    serve(superlink, run)

    running = flat.running(models.build("mobilenet_v2"))
    measured = np.concatenate([running.means, running.variances])
    # Each client adds 1 in each round: steps of 1, 1 + 1/2 and 1 + 3/4.
    learned = np.delete(result(run) - untrained(5), measured)
    np.testing.assert_allclose(learned, 4.25, rtol=0, atol=1e-5)
    # Statistics only follow; clients that agree leave a variance as it is.
    np.testing.assert_allclose(result(run)[measured], untrained(5)[measured] + 3, rtol=0, atol=1e-5)


def test_a_run_in_which_nobody_trains_fails_and_goes_on_with_the_same_round(
    superlink: Any, clients: Clients, store: RunStore
) -> None:
    clients.failing = lambda number: number > 1
    run = create(store, rounds=3)

    with pytest.raises(TooFewTrainedError):
        serve(superlink, run)

    summary = run.summary()
    assert (summary.status, len(summary.rounds)) == ("failed", 2)
    assert summary.error == (
        "no client trained in round 2, begun 3 times: "
        "laptop-1: train: no room; laptop-2: train: no room"
    )
    assert summary.rounds[1].below_minimum
    assert [client.missing for client in summary.rounds[1].missing] == ["error"] * 6
    assert not (run.path / "model.safetensors").exists()

    clients.failing = lambda _: False
    run.prepare_resume()
    serve(superlink, run)

    assert run.summary().status == "finished"
    assert [(r.round, r.below_minimum) for r in run.summary().rounds] == [
        (1, False), (2, False), (3, False),
    ]  # fmt: skip
    np.testing.assert_allclose(result(run), untrained(5) + 3, rtol=0, atol=1e-5)


def test_a_run_that_failed_in_its_first_round_goes_on(
    superlink: Any, clients: Clients, store: RunStore
) -> None:
    clients.failing = lambda _: True
    run = create(store, rounds=1)
    with pytest.raises(TooFewTrainedError):
        serve(superlink, run)
    assert [record.round for record in run.summary().rounds] == [1]

    clients.failing = lambda _: False
    run.prepare_resume()
    serve(superlink, run)

    assert run.summary().status == "finished"
    assert [record.below_minimum for record in run.summary().rounds] == [False]


def test_a_round_below_its_minimum_is_repeated_and_the_model_is_kept(
    superlink: Any, clients: Clients, store: RunStore
) -> None:
    tries: list[int] = []

    def failing(number: int) -> bool:
        """Both clients in round 1, one of them in round 2, once each."""
        tries.append(number)
        return len(tries) in (1, 2, 5)

    clients.failing = failing
    run = create(store, rounds=2, min_clients=2)
    serve(superlink, run)

    summary = run.summary()
    assert summary.status == "finished"
    assert [(r.round, len(r.attempts), r.trained) for r in summary.rounds] == [(1, 1, 2), (2, 1, 2)]
    assert events(run).count("below_minimum") == 2
    assert np.array_equal(result(run), untrained(5) + np.float32(1) + np.float32(1))


def test_a_silent_node_holds_no_round_up(superlink: Any, clients: Clients, store: RunStore) -> None:
    silent = superlink.join(heartbeat_seconds=600)
    run = create(store, rounds=3)

    serve(superlink, run)

    assert run.summary().status == "finished"
    assert superlink.waiting(silent) == 0, "what it was asked is withdrawn at the end"
    moments = [(e["event"], datetime.fromisoformat(e["time"])) for e in run.events()]
    for (before, earlier), (after, later) in pairwise(moments):
        if (before, after) == ("recorded", "round"):
            assert (later - earlier).total_seconds() < 5


def test_a_minimum_that_no_round_can_have_is_refused_at_once(
    superlink: Any, store: RunStore
) -> None:
    run = create(store, min_clients=2, fraction=0.5)

    with pytest.raises(ValueError, match="min_clients"):
        serve(superlink, run)

    assert run.summary().error == (
        "ValueError: min_clients: 2, but a round of this run's 2 clients wants 1"
    )


@pytest.mark.parametrize("megabytes", [0.001, 20])
def test_a_noop_may_be_of_any_size(
    superlink: Any, clients: Clients, store: RunStore, megabytes: float
) -> None:
    run = create(store, task="noop", noop_megabytes=megabytes, rounds=1, server_momentum=0.9)
    serve(superlink, run)

    weights = load_file(run.path / "checkpoint.safetensors")["weights"]
    size = int(megabytes * 250_000)
    expected = np.resize(untrained(5), size) + 1
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-5)
    assert run.summary().status == "finished"
    assert not (run.path / "model.safetensors").exists(), "it is no model"


def test_what_went_wrong_is_in_the_summary(superlink: Any, store: RunStore) -> None:
    run = create(store)
    (run.path / "initial.safetensors").write_bytes(b"half")

    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        serve(superlink, run)

    assert events(run) == ["error"]
    assert run.summary().status == "failed"
    assert (run.summary().error or "").startswith("ValueError: ")


def test_a_loss_that_is_no_number_ends_no_run(tmp_path: Path) -> None:
    with httpx.Client(base_url=NOBODY) as operations:
        _tell(RunFolder(tmp_path), operations, "recorded", round=1, record={"loss": math.nan})

    event = json.loads((tmp_path / "events.jsonl").read_text())
    assert (event["event"], event["round"]) == ("recorded", 1)


def test_a_loss_that_nobody_explains_is_no_failure() -> None:
    with httpx.Client(base_url=NOBODY) as operations:
        assert _why(operations, 77, "pc") is None


@pytest.mark.parametrize(
    ("writes", "recorded"), [("checkpoint.write_aside", 0), ("checkpoint.append_line", 0),
                             ("run.replace_bytes", 2)]
)  # fmt: skip
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_without_room_ends_a_run_that_can_go_on(
    number: int,
    writes: str,
    recorded: int,
    superlink: Any,
    clients: Clients,
    store: RunStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = create(store)
    module, _, name = writes.partition(".")
    place = importlib.import_module(f"fedbench.server.{module}")
    write = getattr(place, name)

    def full(path: Path, *rest: Any, **options: Any) -> Any:
        if path.name != "events.jsonl":
            raise OSError(number, os.strerror(number))
        return write(path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, full)
        with pytest.raises(OSError, match=os.strerror(number)):
            serve(superlink, run)

    assert run.summary().status == "failed"
    said = run.summary().error or ""
    assert said.startswith("the disk at /")
    assert said.endswith(f"{run.path} cannot be written to; with room again, RESUME goes on")
    assert len(run.rounds()) == recorded
    assert not (run.path / "spare").exists()

    run.prepare_resume()
    serve(superlink, run)
    assert [record.round for record in run.summary().rounds] == [1, 2]
    assert run.summary().status == "finished"
    assert np.array_equal(result(run), untrained(5) + np.float32(1) + np.float32(1))


def test_a_run_that_goes_on_from_the_checkpoint_before_says_so(
    superlink: Any, clients: Clients, store: RunStore
) -> None:
    run = create(store)
    serve(superlink, run)
    newest = run.path / "checkpoint.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    (run.path / "summary.json").unlink()

    serve(superlink, run)

    told = [event["reason"] for event in run.events() if event["event"] == "repaired"]
    assert told[0].startswith(f"{newest} is damaged: ")
    assert told[0].endswith("; the run goes on after round 1")
    assert [record.round for record in run.summary().rounds] == [1, 2]


def test_a_run_without_its_checkpoint_is_refused_and_keeps_its_rounds(
    superlink: Any, clients: Clients, store: RunStore
) -> None:
    run = create(store)
    serve(superlink, run)
    for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors"):
        (run.path / name).unlink()

    with pytest.raises(DamagedFileError, match="is missing, but rounds were recorded"):
        serve(superlink, run)

    assert [record.round for record in run.summary().rounds] == [1, 2]
    assert (run.summary().error or "").startswith(
        f"{run.path / 'checkpoint.safetensors'} is missing"
    )
