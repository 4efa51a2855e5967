from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from prometheus_client import CollectorRegistry
from safetensors.numpy import save_file

from fedbench.client import app as client
from fedbench.client.node import Cancelled
from fedbench.client.transfers import Transfers
from fedbench.config import Experiment
from fedbench.learning import data, flat, models
from fedbench.learning.pace import Speed
from fedbench.learning.train import evaluate
from fedbench.records.rounds import TrainWork
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.companions import Companions
from fedbench.wire import ClientTask

KEY = "random-1"
CLASSES = [str(number) for number in range(10)]
NOTHING = {"test_samples", "peak_memory_bytes"}
EXPERIMENT = {"name": "test", "local_epochs": 2, "batch_size": 16}
INITIAL = flat.to_flat(models.build("mobilenet_v2", seed=5))
registry = CollectorRegistry()


@pytest.fixture(scope="module", autouse=True)
def _told_to_prometheus() -> Iterator[None]:
    before = client.metrics
    client.report_to(ClientMetrics(registry, client.cgroup, companions=client.companions))
    yield
    client.report_to(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    (path / KEY).mkdir()
    random = np.random.default_rng(0)
    for name, count in (("train", 64), ("test", 20)):
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        tensors = {"images": images, "labels": random.integers(0, 10, count)}
        metadata = {"classes": json.dumps(CLASSES)}
        save_file(tensors, path / KEY / f"{name}.safetensors", metadata)
    return path


@pytest.fixture(autouse=True)
def _as_new() -> Iterator[None]:
    client.transfers.take()
    yield
    client.cancelled.clear()


def context(folder: Path, name: str = "laptop-1") -> Context:
    config = {"client": name, "device": "laptop", "data": str(folder)}
    return Context(run_id=7, node_id=11, node_config=config, state=RecordDict(), run_config={})


def ask(
    kind: str, folder: Path, *, name: str = "laptop-1", weights: np.ndarray = INITIAL, **asked: Any
) -> RecordDict:
    """The content of the reply of the ClientApp, called as a node calls it.

    `asked` are fields of the task and keys of the experiment.
    """
    task = {"run": "r1", "round": 3, "classes": 10, "data": KEY, "pace": None}
    task = {key: asked.pop(key, default) for key, default in task.items()}
    if kind == MessageType.QUERY:
        content = RecordDict({"config": ConfigRecord({"data": task["data"]})})
    else:
        experiment = Experiment.model_validate(EXPERIMENT | asked)
        record = ClientTask(**task, experiment=experiment.model_dump_json()).record()
        arrays = ArrayRecord({"weights": Array(weights)})
        content = RecordDict({"task": ConfigRecord(record), "arrays": arrays})
    message = Message(content, 11, kind)
    reply = client.app(message, context(folder, name))
    assert reply.metadata.message_type == kind
    assert reply.metadata.dst_node_id == message.metadata.src_node_id
    return reply.content


def told(content: RecordDict) -> dict[str, Any]:
    """What a reply says of the work, as the server reads it."""
    work: dict[str, Any] = json.loads(content["work"]["work"])
    return work


def value(name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_a_client_says_who_it_is_and_what_it_has(folder: Path) -> None:
    content = ask(MessageType.QUERY, folder)

    assert dict(content["client"]) == {"client": "laptop-1", "device": "laptop", "samples": 64}
    assert value("fedbench_partition_samples") == 64


def test_a_client_has_nothing_of_other_data(folder: Path) -> None:
    assert ask(MessageType.QUERY, folder, data="cifar10-iid")["client"]["samples"] == 0


def test_a_partition_that_cannot_be_read_is_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / KEY).mkdir()
    (tmp_path / KEY / "train.safetensors").write_bytes(b"half")

    with pytest.raises(ValueError, match=r"train\.safetensors: cannot be read as safetensors"):
        ask(MessageType.QUERY, tmp_path)


def test_training_reports_what_was_done(folder: Path) -> None:
    content = ask(MessageType.TRAIN, folder)
    work, weights = TrainWork(**told(content)), content["arrays"]["weights"].numpy()

    assert work.model_fields_set == {
        "samples", "epoch_seconds", "epochs", "local_loss", "local_accuracy", "cpu_seconds",
        "throttled_seconds", "busy_share_seconds", "peak_memory_bytes",
    }  # fmt: skip
    assert work.cpu_seconds is not None
    assert work.local_accuracy is not None
    assert [epoch.seconds for epoch in work.epochs] == work.epoch_seconds
    assert sum(epoch.cpu_seconds for epoch in work.epochs) <= work.cpu_seconds
    assert all(epoch.due_seconds is None for epoch in work.epochs), "nothing is emulated"
    assert work.samples == 64
    assert len(work.epoch_seconds) == 2
    assert all(seconds > 0 for seconds in work.epoch_seconds)
    assert 0 <= work.local_accuracy <= 1
    assert weights.dtype == np.float32
    assert weights.shape == INITIAL.shape
    assert np.isfinite(weights).all()
    assert not np.array_equal(weights, INITIAL)


def test_training_is_in_the_metrics_as_it_happens(folder: Path) -> None:
    before = value("fedbench_trained_samples_total") or 0.0
    ask(MessageType.TRAIN, folder, round=9)

    assert value("fedbench_trained_samples_total") == before + 2 * 64
    assert value("fedbench_client_round", run="r1") == 9
    assert value("fedbench_local_epoch", run="r1") == 2
    assert value("fedbench_local_epochs", run="r1") == 2
    assert value("fedbench_local_epoch_last_seconds", run="r1")
    assert value("fedbench_client_phase", phase="waiting") == 1


def test_training_repeats_exactly_and_differs_by_client_round_and_seed(folder: Path) -> None:
    def trained(**changes: Any) -> np.ndarray:
        content = ask(MessageType.TRAIN, folder, local_epochs=1, **changes)
        weights: np.ndarray = content["arrays"]["weights"].numpy()
        return weights

    first = trained()

    assert np.array_equal(trained(), first)
    assert np.array_equal(trained(rounds=9), first), "a constant rate is the same in all rounds"
    for change in ({"name": "laptop-2"}, {"round": 4}, {"seed": 1}):
        assert not np.array_equal(trained(**change), first)


OPTIONS = [
    {"optimizer": "sgd"},
    {"weight_decay": 0.1},
    {"schedule": "cosine"},
    {"augmentation": "flip-crop"},
    {"label_smoothing": 0.1},
    {"gradient_clipping": 1e-3},
    {"stem_stride": 1},
]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: next(iter(option)))
def test_an_option_of_the_training_reaches_it(folder: Path, option: dict[str, Any]) -> None:
    def trained(**changes: Any) -> np.ndarray:
        content = ask(MessageType.TRAIN, folder, local_epochs=1, **changes)
        weights: np.ndarray = content["arrays"]["weights"].numpy()
        return weights

    changed = trained(**option)

    assert np.isfinite(changed).all()
    assert np.array_equal(trained(**option), changed)
    assert not np.array_equal(trained(), changed)


def test_the_rate_of_a_round_is_where_the_run_is(folder: Path) -> None:
    """The last of 1,000 rounds hardly moves a weight; the statistics move all the same."""

    def moved(number: int) -> float:
        content = ask(
            MessageType.TRAIN, folder, local_epochs=1,
            schedule="cosine", rounds=1000, round=number,
        )  # fmt: skip
        change = np.abs(content["arrays"]["weights"].numpy() - INITIAL)
        running = flat.running(models.build("mobilenet_v2"))
        change[np.concatenate([running.means, running.variances])] = 0
        return float(change.max())

    assert moved(1000) < 1e-6
    assert moved(1) > 1e-3


def test_the_model_that_came_is_the_one_that_is_evaluated(folder: Path) -> None:
    ask(MessageType.TRAIN, folder, local_epochs=1)  # leaves other weights in the model

    work = told(ask(MessageType.EVALUATE, folder))

    expected = evaluate(
        models.build("mobilenet_v2", seed=5), data.load(folder / KEY / "test.safetensors")
    )
    assert {key for key, value in work.items() if value is not None} == {
        "test_samples", "evaluate_seconds", "busy_share_seconds", "server_loss",
        "server_accuracy", "confusion", "peak_memory_bytes",
    }  # fmt: skip
    assert work["confusion"] == [count for row in expected.confusion for count in row]
    assert work["test_samples"] == 20
    assert work["server_accuracy"] == expected.accuracy
    assert work["server_loss"] == pytest.approx(expected.loss)
    assert value("fedbench_global_model_accuracy", run="r1") == expected.accuracy


@pytest.mark.parametrize("name", ["squeezenet1_1", "sample:small_cnn"])
def test_any_model_is_trained_and_evaluated(folder: Path, name: str) -> None:
    weights = flat.to_flat(models.build(name))
    content = ask(MessageType.TRAIN, folder, weights=weights, model=name, local_epochs=1)
    trained = content["arrays"]["weights"].numpy()

    assert trained.shape == weights.shape
    assert not np.array_equal(trained, weights)
    work = told(ask(MessageType.EVALUATE, folder, weights=trained, model=name))
    assert work["test_samples"] == 20


def test_a_model_that_changes_between_runs_is_made_anew(folder: Path, own_models: Path) -> None:
    code = "from torch import nn\ndef net(classes): return nn.Sequential(nn.Flatten(), {})"
    for layers in ("nn.Linear(3072, classes)", "nn.Linear(3072, 9), nn.Linear(9, classes)"):
        (own_models / "mine.py").write_text(code.format(layers))
        weights = flat.to_flat(models.build("mine:net"))
        content = ask(MessageType.TRAIN, folder, weights=weights, model="mine:net", local_epochs=1)
        assert content["arrays"]["weights"].numpy().shape == weights.shape


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        with pytest.raises(ValueError, match="expected a float32 array"):
            ask(kind, folder, weights=INITIAL[:-1])


def test_a_noop_returns_the_weights_but_no_object_flower_has_already(folder: Path) -> None:
    one = ask(MessageType.TRAIN, folder, task="noop")
    other = ask(MessageType.TRAIN, folder, task="noop", name="laptop-2")
    later = ask(MessageType.TRAIN, folder, task="noop", round=4)

    arrays = [content["arrays"]["weights"] for content in (one, other, later)]
    assert len({array.object_id for array in (*arrays, Array(INITIAL))}) == 4
    for array in arrays:
        np.testing.assert_allclose(array.numpy(), INITIAL, rtol=0, atol=0.002)
    assert told(one).keys() == {
        "samples", "cpu_seconds", "throttled_seconds", "peak_memory_bytes",
    }  # fmt: skip
    assert told(one)["samples"] == 1


def test_a_noop_needs_no_data(tmp_path: Path) -> None:
    ask(MessageType.TRAIN, tmp_path, task="noop")

    assert told(ask(MessageType.EVALUATE, tmp_path, task="noop")).keys() == NOTHING


def test_a_reply_tells_the_bytes_since_the_one_before(folder: Path) -> None:
    before = value("fedbench_received_bytes_total") or 0.0
    client.transfers.transferred(received=900)
    client.transfers.transferred(sent=70)
    client.transfers.transferred(received=100)

    first = told(ask(MessageType.EVALUATE, folder, task="noop"))
    client.transfers.transferred(sent=80)
    second = told(ask(MessageType.EVALUATE, folder, task="noop"))
    third = told(ask(MessageType.EVALUATE, folder, task="noop"))

    assert first.keys() == NOTHING | {
        "bytes_sent", "bytes_received", "download_seconds", "upload_seconds", "serialise_seconds",
    }  # fmt: skip
    assert (first["bytes_sent"], first["bytes_received"]) == (70, 1000)
    assert (second["bytes_sent"], second["bytes_received"]) == (80, 0)
    assert third.keys() == NOTHING  # the stock node's ClientApp sees no bytes
    assert value("fedbench_received_bytes_total") == before + 1000


def test_a_reply_tells_the_seconds_since_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    wire = Transfers(client.metrics)
    wire.transferred(received=1)
    for part, seconds in (("download", 2.0), ("serialise", 0.5), ("serialise", 0.25)):
        with wire.timed(part):
            now += seconds

    taken = wire.take()

    assert (taken["download_seconds"], taken["serialise_seconds"]) == (2.0, 0.75)
    assert taken["upload_seconds"] == 0.0
    wire.transferred(sent=1)
    assert wire.take()["download_seconds"] == 0.0


def test_the_copies_between_model_and_bytes_are_timed(folder: Path) -> None:
    client.transfers.transferred(received=1)

    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        assert told(ask(kind, folder, local_epochs=1))["serialise_seconds"] > 0
        client.transfers.transferred(sent=1)


def test_training_ends_at_the_next_batch_when_the_run_does(folder: Path) -> None:
    client.cancelled.set()
    before = value("fedbench_trained_samples_total")

    with pytest.raises(Cancelled):
        ask(MessageType.TRAIN, folder)
    assert value("fedbench_trained_samples_total") == before
    assert value("fedbench_client_phase", phase="waiting") == 1

    client.cancelled.clear()
    assert told(ask(MessageType.TRAIN, folder))["samples"] == 64


def test_an_evaluation_ends_at_the_next_batch_when_nobody_waits_for_it(folder: Path) -> None:
    client.cancelled.set()

    with pytest.raises(Cancelled):
        ask(MessageType.EVALUATE, folder)
    assert value("fedbench_client_phase", phase="waiting") == 1

    client.cancelled.clear()
    assert told(ask(MessageType.EVALUATE, folder))["test_samples"] > 0


def test_a_client_that_waits_for_its_device_is_cancelled_at_once(folder: Path) -> None:
    """Of the two batches the first alone would take an hour."""
    threading.Timer(0.2, client.cancelled.set).start()

    with pytest.raises(Cancelled):
        ask(MessageType.TRAIN, folder, pace=Speed(16 / 3600, 16 / 3600))


def test_training_keeps_to_the_pace_of_the_device(folder: Path) -> None:
    work = TrainWork(**told(ask(MessageType.TRAIN, folder, pace=Speed(80.0, 80.0))))

    assert all(seconds >= 0.8 for seconds in work.epoch_seconds)
    assert [epoch.due_seconds for epoch in work.epochs] == pytest.approx([0.8, 0.8])
    assert value("fedbench_pace_late_seconds", run="r1") is not None


def test_an_emulated_client_never_says_that_it_is_faster_than_its_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its speed changes with what is told, so that looking then is looking at any time."""
    speeds: list[float] = []

    class Watched(ClientMetrics):
        def progress(self, **said: Any) -> None:
            super().progress(**said)
            speeds.append(seen.get_sample_value("fedbench_samples_per_second", {"run": "r1"}) or 0)

    seen = CollectorRegistry()
    monkeypatch.setattr(client, "metrics", Watched(seen, client.cgroup))
    pace = Speed(40.0, 40.0)
    ask(MessageType.TRAIN, folder, pace=pace, batch_size=8, local_epochs=1)

    assert len(speeds) == 8
    assert min(speeds) > 0
    assert max(speeds) <= 1.5 * pace.single


def test_work_beside_another_client_of_the_computer_is_half_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "companions", Companions(tmp_path, "laptop-1"))
    with Companions(tmp_path, "laptop-2").busy():
        trained = told(ask(MessageType.TRAIN, folder, pace=Speed(160.0, 160.0)))
        evaluated = told(ask(MessageType.EVALUATE, folder))
    alone = told(ask(MessageType.EVALUATE, folder))

    assert trained["busy_share_seconds"] == pytest.approx(sum(trained["epoch_seconds"]) / 2)
    assert evaluated["busy_share_seconds"] == pytest.approx(evaluated["evaluate_seconds"] / 2)
    assert [epoch["due_seconds"] for epoch in trained["epochs"]] == pytest.approx([0.8, 0.8])
    assert alone["busy_share_seconds"] == pytest.approx(alone["evaluate_seconds"])


def test_training_goes_on_for_as_long_as_it_was_told(folder: Path) -> None:
    pace = Speed(160.0, 160.0)
    content = ask(MessageType.TRAIN, folder, pace=pace, local_epochs=1, local_seconds=1.0)
    seconds = told(content)["epoch_seconds"]

    assert sum(seconds[:-1]) < 1.0 <= sum(seconds) + 0.01
