from __future__ import annotations

import json
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
from fedbench.learning import data, flat, models
from fedbench.learning.train import evaluate
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.companions import Companions

KEY = "random-1"
CLASSES = [str(number) for number in range(10)]
COMMON = {"num-examples", "peak-memory-bytes"}
TASK = {
    "run": "r1",
    "task": "train",
    "model": "mobilenet_v2",
    "classes": 10,
    "data": KEY,
    "local-epochs": 2,
    "local-seconds": 0.0,
    "batch-size": 16,
    "learning-rate": 0.001,
    "precision": "fp32",
    "rounds": 5,
    "optimizer": "adam",
    "weight-decay": 0.0,
    "schedule": "constant",
    "augmentation": "none",
    "label-smoothing": 0.0,
    "stem-stride": 2,
    "seed": 0,
    "server-round": 3,
    "pace": "{}",
}
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
    client.wire.take()
    yield
    client.cancelled.clear()


def context(folder: Path, name: str = "laptop-1") -> Context:
    config = {"client": name, "device": "laptop", "data": str(folder)}
    return Context(run_id=7, node_id=11, node_config=config, state=RecordDict(), run_config={})


def ask(
    kind: str, folder: Path, *, name: str = "laptop-1", weights: np.ndarray = INITIAL, **task: Any
) -> RecordDict:
    """The content of the reply of the ClientApp, called as a node calls it."""
    changes = {key.replace("_", "-"): value for key, value in task.items()}
    content = RecordDict({"config": ConfigRecord(TASK | changes)})
    if kind != MessageType.QUERY:
        content["arrays"] = ArrayRecord({"weights": Array(weights)})
    message = Message(content, 11, kind)
    reply = client.app(message, context(folder, name))
    assert reply.metadata.message_type == kind
    assert reply.metadata.dst_node_id == message.metadata.src_node_id
    return reply.content


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
    metrics, weights = dict(content["metrics"]), content["arrays"]["weights"].numpy()

    assert metrics.keys() == COMMON | {
        "epoch-seconds", "loss", "accuracy", "cpu-seconds", "throttled-seconds",
        "epoch-cpu-seconds", "epoch-throttled-seconds", "epoch-steal-seconds", "epoch-due-seconds",
        "busy-share",
    }  # fmt: skip
    assert len(metrics["epoch-cpu-seconds"]) == len(metrics["epoch-seconds"])
    assert sum(metrics["epoch-cpu-seconds"]) <= metrics["cpu-seconds"]
    assert metrics["epoch-due-seconds"] == []  # nothing is emulated
    assert metrics["num-examples"] == 64
    assert len(metrics["epoch-seconds"]) == 2
    assert all(seconds > 0 for seconds in metrics["epoch-seconds"])
    assert 0 <= metrics["accuracy"] <= 1
    assert weights.dtype == np.float32
    assert weights.shape == INITIAL.shape
    assert np.isfinite(weights).all()
    assert not np.array_equal(weights, INITIAL)


def test_training_is_in_the_metrics_as_it_happens(folder: Path) -> None:
    before = value("fedbench_trained_samples_total") or 0.0
    ask(MessageType.TRAIN, folder, server_round=9)

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
    for change in ({"name": "laptop-2"}, {"server_round": 4}, {"seed": 1}):
        assert not np.array_equal(trained(**change), first)


OPTIONS = [
    {"optimizer": "sgd"},
    {"weight_decay": 0.1},
    {"schedule": "cosine"},
    {"augmentation": "flip-crop"},
    {"label_smoothing": 0.1},
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

    def moved(server_round: int) -> float:
        content = ask(
            MessageType.TRAIN, folder, local_epochs=1,
            schedule="cosine", rounds=1000, server_round=server_round,
        )  # fmt: skip
        change = np.abs(content["arrays"]["weights"].numpy() - INITIAL)
        running = flat.running(models.build("mobilenet_v2"))
        change[np.concatenate([running.means, running.variances])] = 0
        return float(change.max())

    assert moved(1000) < 1e-6
    assert moved(1) > 1e-3


def test_the_model_that_came_is_the_one_that_is_evaluated(folder: Path) -> None:
    ask(MessageType.TRAIN, folder, local_epochs=1)  # leaves other weights in the model

    metrics = dict(ask(MessageType.EVALUATE, folder)["metrics"])

    expected = evaluate(
        models.build("mobilenet_v2", seed=5), data.load(folder / KEY / "test.safetensors")
    )
    assert metrics.keys() == COMMON | {
        "evaluate-seconds", "busy-share", "loss", "accuracy", "confusion",
    }  # fmt: skip
    assert metrics["confusion"] == [count for row in expected.confusion for count in row]
    assert metrics["num-examples"] == 20
    assert metrics["accuracy"] == expected.accuracy
    assert metrics["loss"] == pytest.approx(expected.loss)
    assert value("fedbench_global_model_accuracy", run="r1") == expected.accuracy


@pytest.mark.parametrize("name", ["squeezenet1_1", "sample:small_cnn"])
def test_any_model_is_trained_and_evaluated(folder: Path, name: str) -> None:
    weights = flat.to_flat(models.build(name))
    content = ask(MessageType.TRAIN, folder, weights=weights, model=name, local_epochs=1)
    trained = content["arrays"]["weights"].numpy()

    assert trained.shape == weights.shape
    assert not np.array_equal(trained, weights)
    metrics = ask(MessageType.EVALUATE, folder, weights=trained, model=name)["metrics"]
    assert metrics["num-examples"] == 20


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
    later = ask(MessageType.TRAIN, folder, task="noop", server_round=4)

    arrays = [content["arrays"]["weights"] for content in (one, other, later)]
    assert len({array.object_id for array in (*arrays, Array(INITIAL))}) == 4
    for array in arrays:
        np.testing.assert_allclose(array.numpy(), INITIAL, rtol=0, atol=0.002)
    assert one["metrics"].keys() == COMMON | {"cpu-seconds", "throttled-seconds"}
    assert one["metrics"]["num-examples"] == 1


def test_a_noop_needs_no_data(tmp_path: Path) -> None:
    ask(MessageType.TRAIN, tmp_path, task="noop")

    assert ask(MessageType.EVALUATE, tmp_path, task="noop")["metrics"].keys() == COMMON


def test_a_reply_tells_the_bytes_since_the_one_before(folder: Path) -> None:
    before = value("fedbench_received_bytes_total") or 0.0
    client.wire.transferred(received=900)
    client.wire.transferred(sent=70)
    client.wire.transferred(received=100)

    first = ask(MessageType.EVALUATE, folder, task="noop")["metrics"]
    client.wire.transferred(sent=80)
    second = ask(MessageType.EVALUATE, folder, task="noop")["metrics"]
    third = ask(MessageType.EVALUATE, folder, task="noop")["metrics"]

    assert first.keys() == COMMON | {
        "bytes-sent", "bytes-received", "download-seconds", "upload-seconds", "serialise-seconds",
    }  # fmt: skip
    assert (first["bytes-sent"], first["bytes-received"]) == (70, 1000)
    assert (second["bytes-sent"], second["bytes-received"]) == (80, 0)
    assert third.keys() == COMMON  # the stock node's ClientApp sees no bytes
    assert value("fedbench_received_bytes_total") == before + 1000


def test_a_reply_tells_the_seconds_since_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    wire = client.Wire(client.metrics)
    wire.transferred(received=1)
    for part, seconds in (("download", 2.0), ("serialise", 0.5), ("serialise", 0.25)):
        with wire.timed(part):
            now += seconds

    taken = wire.take()

    assert (taken["download-seconds"], taken["serialise-seconds"]) == (2.0, 0.75)
    assert taken["upload-seconds"] == 0.0
    wire.transferred(sent=1)
    assert wire.take()["download-seconds"] == 0.0


def test_the_copies_between_model_and_bytes_are_timed(folder: Path) -> None:
    client.wire.transferred(received=1)

    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        assert ask(kind, folder, local_epochs=1)["metrics"]["serialise-seconds"] > 0
        client.wire.transferred(sent=1)


def test_training_ends_at_the_next_batch_when_the_run_does(folder: Path) -> None:
    client.cancelled.set()
    before = value("fedbench_trained_samples_total")

    with pytest.raises(Cancelled):
        ask(MessageType.TRAIN, folder)
    assert value("fedbench_trained_samples_total") == before
    assert value("fedbench_client_phase", phase="waiting") == 1

    client.cancelled.clear()
    assert ask(MessageType.TRAIN, folder)["metrics"]["num-examples"] == 64


def test_training_keeps_to_the_pace_of_the_device(folder: Path) -> None:
    pace = json.dumps({"laptop-1": [80.0, 80.0], "other": [1.0, 1.0]})
    metrics = ask(MessageType.TRAIN, folder, pace=pace)["metrics"]

    assert all(seconds >= 0.8 for seconds in metrics["epoch-seconds"])
    assert metrics["epoch-due-seconds"] == pytest.approx([0.8, 0.8])
    assert value("fedbench_pace_late_seconds", run="r1") is not None


def test_work_beside_another_client_of_the_computer_is_half_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "companions", Companions(tmp_path, "laptop-1"))
    pace = json.dumps({"laptop-1": [160.0, 160.0]})
    with Companions(tmp_path, "laptop-2").busy():
        trained = ask(MessageType.TRAIN, folder, pace=pace)["metrics"]
        evaluated = ask(MessageType.EVALUATE, folder)["metrics"]

    assert (trained["busy-share"], evaluated["busy-share"]) == pytest.approx((0.5, 0.5))
    assert trained["epoch-due-seconds"] == pytest.approx([0.8, 0.8])
    assert ask(MessageType.EVALUATE, folder)["metrics"]["busy-share"] == pytest.approx(1)


def test_training_goes_on_for_as_long_as_it_was_told(folder: Path) -> None:
    pace = json.dumps({"laptop-1": [160.0, 160.0]})
    metrics = ask(MessageType.TRAIN, folder, pace=pace, local_epochs=1, local_seconds=1.0)[
        "metrics"
    ]

    assert sum(metrics["epoch-seconds"][:-1]) < 1.0 <= sum(metrics["epoch-seconds"]) + 0.01
