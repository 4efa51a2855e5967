"""The ClientApp: trains and evaluates on this client's own images.

An ordinary Flower ClientApp: fedbench's node runs it in-process, the stock `flower-supernode` in
a process per message. What it needs of its surroundings comes through `context.node_config`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedbench.client.node import WIRE_PARTS, Cancelled, WirePart
from fedbench.learning import data, flat, models
from fedbench.learning.models import set_stem_stride
from fedbench.learning.pace import Pace, Speed
from fedbench.learning.processor import TimeShare, limit_memory
from fedbench.learning.recipe import Recipe
from fedbench.learning.train import Epoch, Progress, evaluate, train
from fedbench.telemetry.cgroup import Cgroup, Usage, Used
from fedbench.telemetry.companions import FOLDER, Companions, Turn
from fedbench.telemetry.timing import Timing
from fedbench.telemetry.work import ClientPhase, WorkCounter, WorkObserver


class Wire:
    """What passes between model and server, and how long it takes: for the next reply."""

    def __init__(self, metrics: WorkObserver) -> None:
        self._metrics = metrics
        self._sent = self._received = 0
        self._timing = Timing[WirePart]()

    def transferred(self, *, sent: int = 0, received: int = 0, model: bool = False) -> None:
        """Counts bytes that were exchanged, in what was timed last."""
        self._metrics.transferred(
            sent=sent, received=received, seconds=self._timing.last, model=model
        )
        self._sent += sent
        self._received += received

    def timed(self, part: WirePart) -> AbstractContextManager[None]:
        """Adds what the block takes."""
        return self._timing.measure(part)

    def take(self) -> dict[str, float]:
        """Bytes and seconds since the last reply, for a reply cannot count itself.

        Nothing where no bytes are counted: the stock node transfers in another process.
        """
        taken = {"bytes-sent": self._sent, "bytes-received": self._received}
        lap = self._timing.lap()
        seconds = {f"{part}-seconds": float(lap[part]) for part in WIRE_PARTS}
        self._sent = self._received = 0
        return taken | seconds if any(taken.values()) else {}


log = logging.getLogger("fedbench.client")
app = ClientApp()
cgroup = Cgroup()
companions = Companions(FOLDER, os.environ.get("FEDBENCH_CLIENT", ""))
metrics: WorkObserver = WorkCounter()
wire = Wire(metrics)
cancelled = threading.Event()
# A GPU is there where the plan reserved one for this client.
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# The plan's, of the GPU that it reserved.
gpu_share = float(os.environ.get("FEDBENCH_GPU_SHARE", "1")) if device.type == "cuda" else 1.0
if device.type == "cuda" and "FEDBENCH_GPU_MEMORY" in os.environ:
    limit_memory(int(os.environ["FEDBENCH_GPU_MEMORY"]), device)


def report_to(observer: WorkObserver) -> None:
    """Tell `observer` of this process' work from now on; before, nobody is told."""
    global metrics, wire
    metrics, wire = observer, Wire(observer)


@app.query()
def identify(message: Message, context: Context) -> Message:
    """Says who this is, and how many training images it holds of the data set asked for."""
    key = str(message.content["config"]["data"])
    folder = _folder(context, key)
    samples = len(_images(folder / "train.safetensors")) if folder.is_dir() else 0
    metrics.partition(samples)
    return Message(RecordDict({"client": _identity(context, samples)}), reply_to=message)


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Trains the model that came on this client's images, and sends it back."""
    task = message.content["config"]
    before = cgroup.cpu()
    arrays: ArrayRecord
    results: dict[str, Any]
    if task["task"] == "noop":
        arrays, results = _touched(message, context), {"num-examples": 1}
    else:
        arrays, results = _train(message, context, task)
    after = cgroup.cpu()
    results |= {
        "cpu-seconds": after.seconds - before.seconds,
        "throttled-seconds": after.throttled_seconds - before.throttled_seconds,
    }
    return _reply(message, results, arrays)


@app.evaluate()
def score(message: Message, context: Context) -> Message:
    """Evaluates the model that came on the test images."""
    task = message.content["config"]
    if task["task"] == "noop":
        return _reply(message, {"num-examples": 1})
    images = _images(_folder(context, task["data"]) / "test.safetensors")
    model = _loaded_model(message, task)
    with _busy("evaluating") as turn:
        result = evaluate(model, images, precision=task["precision"])
    metrics.evaluated(
        run=str(task["run"]),
        round_number=int(task["server-round"]),
        seconds=result.seconds,
        loss=result.loss,
        accuracy=result.accuracy,
    )
    results = {
        "num-examples": result.samples,
        "evaluate-seconds": result.seconds,
        "busy-share": turn.share,
        "loss": result.loss,
        "accuracy": result.accuracy,
        "confusion": [count for row in result.confusion for count in row],
    }
    return _reply(message, results)


def _train(message: Message, context: Context, task: Any) -> tuple[ArrayRecord, dict[str, Any]]:
    images = _images(_folder(context, task["data"]) / "train.safetensors")
    model = _loaded_model(message, task)
    run, server_round = str(task["run"]), int(task["server-round"])
    client = str(context.node_config["client"])
    pace = _pace(task, client)
    gpu_time = TimeShare(gpu_share, torch.cuda.synchronize) if gpu_share < 1 else None

    def on_batch(progress: Progress) -> None:
        began = time.perf_counter()
        if cancelled.is_set():
            raise Cancelled
        if progress.epoch == progress.batch == 1:
            log.info("first training step done")
        metrics.progress(
            run=run,
            round_number=server_round,
            epoch=progress.epoch,
            epochs=progress.epochs,
            samples=progress.samples,
            seconds=progress.seconds,
        )
        if gpu_time:
            gpu_time.after_batch()
        if pace:
            _finish_batch()
            waited = time.perf_counter() - began
            metrics.late(run, pace.wait(progress.samples, progress.seconds + waited))

    used: list[Used] = []
    due: list[float] = []

    def on_epoch(epoch: Epoch) -> None:
        used.append(usage.lap())
        if pace:
            due.append(pace.due)
        metrics.epoch_finished(
            run=run,
            round_number=server_round,
            seconds=epoch.seconds,
            loss=epoch.loss,
            accuracy=epoch.accuracy,
            samples=epoch.samples,
            due=pace.due if pace else None,
        )

    usage = Usage(cgroup)
    with _busy("training") as turn:
        epochs = train(
            model,
            images,
            epochs=task["local-epochs"],
            seconds=task["local-seconds"],
            batch_size=task["batch-size"],
            learning_rate=task["learning-rate"],
            precision=task["precision"],
            recipe=_recipe(task),
            # Each round shuffles anew, and each client differently.
            seed=_seed(task["seed"], server_round, client),
            on_batch=on_batch,
            on_epoch=on_epoch,
        )
    results = {
        "num-examples": len(images),
        "epoch-seconds": [epoch.seconds for epoch in epochs],
        "epoch-cpu-seconds": [one.cpu for one in used],
        "epoch-throttled-seconds": [one.throttled for one in used],
        "epoch-steal-seconds": [one.steal for one in used],
        "epoch-due-seconds": due,
        "busy-share": turn.share,
        "loss": epochs[-1].loss,
        "accuracy": epochs[-1].accuracy,
    }
    with wire.timed("serialise"):
        return ArrayRecord({"weights": Array(flat.to_flat(model))}), results


def _recipe(task: Any) -> Recipe:
    number, rounds = task["server-round"], task["rounds"]
    return Recipe(
        optimizer=task["optimizer"],
        weight_decay=task["weight-decay"],
        schedule=task["schedule"],
        augmentation=task["augmentation"],
        label_smoothing=task["label-smoothing"],
        run=((number - 1) / rounds, number / rounds),
    )


@contextmanager
def _busy(phase: ClientPhase) -> Iterator[Turn]:
    """In this phase, and busy on its computer."""
    with metrics.phase(phase), companions.busy() as turn:
        yield turn


def _pace(task: Any, client: str) -> Pace | None:
    """The emulated device's; None for a real one, which is as fast as it is."""
    speeds = json.loads(str(task["pace"]))
    return Pace(Speed(*speeds[client]), companions.active) if client in speeds else None


def _finish_batch() -> None:
    """Waits for a GPU, which has only been handed it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _touched(message: Message, context: Context) -> ArrayRecord:
    """The weights, each changed a little: Flower does not send again what it has already."""
    config = message.content["config"]
    change = _seed(config["server-round"], context.node_config["client"]) / 2**42
    with wire.timed("serialise"):
        weights = _weights(message.content["arrays"])
        return ArrayRecord({"weights": Array(weights + weights.dtype.type(change))})


def _loaded_model(message: Message, task: Any) -> nn.Module:
    name, stride = str(task["model"]), task["stem-stride"]
    model = _model(name, task["classes"], stride, models.edition(name))
    with wire.timed("serialise"):
        flat.from_flat(model, _weights(message.content["arrays"]))
    return model


@lru_cache(maxsize=1)
def _model(name: str, classes: int, stem_stride: int, edition: str) -> nn.Module:  # noqa: ARG001 (a key of the cache)
    return set_stem_stride(models.build(name, classes), stem_stride).to(device)


@lru_cache(maxsize=2)
def _images(path: Path) -> data.ImageSet:
    return data.load(path, device)


def _weights(arrays: ArrayRecord) -> flat.Flat:
    weights: flat.Flat = arrays["weights"].numpy()
    return weights


def _seed(*parts: object) -> int:
    return zlib.crc32(repr(parts).encode())


def _folder(context: Context, key: str) -> Path:
    return Path(str(context.node_config["data"])) / key


def _identity(context: Context, samples: int) -> ConfigRecord:
    config = context.node_config
    return ConfigRecord(
        {"client": str(config["client"]), "device": str(config["device"]), "samples": samples}
    )


def _reply(message: Message, results: dict[str, Any], arrays: ArrayRecord | None = None) -> Message:
    results |= wire.take() | {"peak-memory-bytes": cgroup.memory().peak}
    content = RecordDict({"metrics": MetricRecord(results)})
    if arrays is not None:
        content["arrays"] = arrays
    return Message(content, reply_to=message)
