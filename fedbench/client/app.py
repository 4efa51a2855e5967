"""The ClientApp: trains and evaluates on this client's own images.

An ordinary Flower ClientApp: fedbench's node runs it in-process, the stock `flower-supernode` in
a process per message. What it needs of its surroundings comes through `context.node_config`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedbench.client.node import Cancelled
from fedbench.client.transfers import Transfers
from fedbench.learning import data, flat, models
from fedbench.learning.models import set_stem_stride
from fedbench.learning.pace import Pace
from fedbench.learning.processor import TimeShare, limit_memory
from fedbench.learning.recipe import Recipe
from fedbench.learning.train import Epoch, Progress, evaluate, train
from fedbench.records.rounds import EpochRecord, TrainWork
from fedbench.telemetry.cgroup import Cgroup, Usage
from fedbench.telemetry.companions import FOLDER, Companions, Turn
from fedbench.telemetry.work import ClientPhase, WorkCounter, WorkObserver
from fedbench.wire import TASK, WORK, ClientTask, EvaluateReply, Work, work_record

log = logging.getLogger("fedbench.client")
app = ClientApp()
cgroup = Cgroup()
companions = Companions(FOLDER, os.environ.get("FEDBENCH_CLIENT", ""))
metrics: WorkObserver = WorkCounter()
transfers = Transfers(metrics)
cancelled = threading.Event()
# A GPU is there where the plan reserved one for this client. Its number is said: a limit of memory
# asks for it.
device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
# The plan's, of the GPU that it reserved.
gpu_share = float(os.environ.get("FEDBENCH_GPU_SHARE", "1")) if device.type == "cuda" else 1.0
if device.type == "cuda" and "FEDBENCH_GPU_MEMORY" in os.environ:
    limit_memory(int(os.environ["FEDBENCH_GPU_MEMORY"]), device)


def report_to(observer: WorkObserver) -> None:
    """Tell `observer` of this process' work from now on; before, nobody is told."""
    global metrics, transfers
    metrics, transfers = observer, Transfers(observer)


@app.query()
def identify(message: Message, context: Context) -> Message:
    """Say who this is, and how many training images it holds of the data set asked for."""
    key = str(message.content["config"]["data"])
    folder = _folder(context, key)
    samples = len(_images(folder / "train.safetensors")) if folder.is_dir() else 0
    metrics.partition(samples)
    return Message(RecordDict({"client": _identity(context, samples)}), reply_to=message)


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train the model that came on this client's images, and send it back."""
    task = _task(message)
    before = cgroup.cpu()
    if task.experiment.task == "noop":
        arrays, results = _touched(message, context, task), {"samples": 1}
    else:
        arrays, results = _train(message, context, task)
    after = cgroup.cpu()
    work = TrainWork(
        **results,
        **_told(),
        cpu_seconds=after.seconds - before.seconds,
        throttled_seconds=after.throttled_seconds - before.throttled_seconds,
    )
    return _reply(message, work, arrays)


@app.evaluate()
def score(message: Message, context: Context) -> Message:
    """Evaluate the model that came on the test images."""
    task = _task(message)
    if task.experiment.task == "noop":
        return _reply(message, EvaluateReply(test_samples=1, **_told()))
    images = _images(_folder(context, task.data) / "test.safetensors")
    model = _loaded_model(message, task)
    with _busy("evaluating") as turn:
        result = evaluate(
            model, images, precision=task.experiment.precision, on_batch=_heed_cancelling
        )
    metrics.evaluated(
        run=task.run,
        round_number=task.round,
        seconds=result.seconds,
        loss=result.loss,
        accuracy=result.accuracy,
    )
    told = _told()
    work = EvaluateReply(
        **told,
        test_samples=result.samples,
        evaluate_seconds=result.seconds,
        evaluate_download_seconds=told.get("download_seconds"),
        busy_share_seconds=turn.share * result.seconds,
        server_loss=result.loss,
        server_accuracy=result.accuracy,
        confusion=[count for row in result.confusion for count in row],
    )
    return _reply(message, work)


def _train(
    message: Message, context: Context, task: ClientTask
) -> tuple[ArrayRecord, dict[str, Any]]:
    images = _images(_folder(context, task.data) / "train.safetensors")
    model = _loaded_model(message, task)
    run, server_round, experiment = task.run, task.round, task.experiment
    client = str(context.node_config["client"])
    # A real device has none: it is as fast as it is.
    pace = Pace(task.pace, companions.active, cancelled.wait) if task.pace else None
    gpu_time = TimeShare(gpu_share, torch.cuda.synchronize) if gpu_share < 1 else None

    def on_batch(progress: Progress) -> None:
        began = time.perf_counter()
        _heed_cancelling()
        if progress.epoch == progress.batch == 1:
            log.info("first training step done")
        if gpu_time:
            gpu_time.after_batch()
        if pace:
            _finish_batch()
            waited = time.perf_counter() - began
            metrics.late(run, pace.wait(progress.samples, progress.seconds + waited))
        # Before it waited the batch would look as fast as the host is.
        metrics.progress(
            run=run,
            round_number=server_round,
            epoch=progress.epoch,
            epochs=progress.epochs,
            samples=progress.samples,
            seconds=progress.seconds + time.perf_counter() - began,
        )

    records: list[EpochRecord] = []

    def on_epoch(epoch: Epoch) -> None:
        used = usage.lap()
        records.append(
            EpochRecord(
                seconds=epoch.seconds,
                cpu_seconds=used.cpu,
                throttled_seconds=used.throttled,
                steal_seconds=used.steal,
                due_seconds=pace.due if pace else None,
            )
        )
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
            epochs=experiment.local_epochs,
            seconds=experiment.local_seconds,
            batch_size=experiment.batch_size,
            learning_rate=experiment.learning_rate,
            precision=experiment.precision,
            recipe=Recipe.of(experiment.model_dump(), server_round, experiment.rounds),
            # Each round shuffles anew, and each client differently.
            seed=_seed(experiment.seed, server_round, client),
            on_batch=on_batch,
            on_epoch=on_epoch,
        )
    results = {
        "samples": len(images),
        "epoch_seconds": [epoch.seconds for epoch in epochs],
        "epochs": records,
        "busy_share_seconds": turn.share * sum(epoch.seconds for epoch in epochs),
        "local_loss": epochs[-1].loss,
        "local_accuracy": epochs[-1].accuracy,
    }
    with transfers.timed("serialise"):
        return ArrayRecord({"weights": Array(flat.to_flat(model))}), results


@contextmanager
def _busy(phase: ClientPhase) -> Iterator[Turn]:
    """Be in this phase, and busy on the client's computer."""
    with metrics.phase(phase), companions.busy() as turn:
        yield turn


def _heed_cancelling() -> None:
    if cancelled.is_set():
        raise Cancelled


def _finish_batch() -> None:
    """Wait for a GPU, which has only been handed it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _touched(message: Message, context: Context, task: ClientTask) -> ArrayRecord:
    """Change each weight a little: Flower does not send again what it has already."""
    change = _seed(task.round, context.node_config["client"]) / 2**42
    with transfers.timed("serialise"):
        weights = _weights(message.content["arrays"])
        return ArrayRecord({"weights": Array(weights + weights.dtype.type(change))})


def _loaded_model(message: Message, task: ClientTask) -> nn.Module:
    name, stride = task.experiment.model, task.experiment.stem_stride
    model = _model(name, task.classes, stride, models.edition(name))
    with transfers.timed("serialise"):
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


def _seed(*of: object) -> int:
    return zlib.crc32(repr(of).encode())


def _folder(context: Context, key: str) -> Path:
    return Path(str(context.node_config["data"])) / key


def _identity(context: Context, samples: int) -> ConfigRecord:
    config = context.node_config
    return ConfigRecord(
        {"client": str(config["client"]), "device": str(config["device"]), "samples": samples}
    )


def _task(message: Message) -> ClientTask:
    return ClientTask.of(message.content[TASK])


def _told() -> dict[str, Any]:
    """Return what any reply tells of this client."""
    return transfers.take() | {"peak_memory_bytes": cgroup.memory().peak}


def _reply(message: Message, work: Work, arrays: ArrayRecord | None = None) -> Message:
    content = RecordDict({WORK: ConfigRecord(work_record(work))})
    if arrays is not None:
        content["arrays"] = arrays
    return Message(content, reply_to=message)
