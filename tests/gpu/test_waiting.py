"""Nobody waits for the GPU within an epoch: more batches, no more waiting."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from trainings import BATCH, image_set

from fedbench.learning import models
from fedbench.learning.data import ImageSet
from fedbench.learning.train import evaluate, train


def waits(work: Callable[[], object]) -> int:
    """Count how often torch waited for the GPU, or for a copy from it or to it."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def test_a_wait_is_counted(gpu: torch.device) -> None:
    number = torch.ones((), device=gpu)

    assert waits(lambda: [number.item() for _ in range(3)]) == 3


def test_an_evaluation_waits_once_whatever_its_batches(gpu: torch.device) -> None:
    model = models.build("mobilenet_v3_small").to(gpu)
    few, many = (image_set(count * BATCH, gpu) for count in (2, 9))

    first = waits(lambda: evaluate(model, few, batch_size=BATCH))

    assert first == waits(lambda: evaluate(model, many, batch_size=BATCH)) > 0


def test_an_epoch_waits_once_whatever_its_batches(gpu: torch.device) -> None:
    """The first steps are eager, the others from a graph."""
    few, many = (image_set(count * BATCH + 8, gpu) for count in (6, 15))
    settings = {"epochs": 2, "batch_size": BATCH, "learning_rate": 0.001, "seed": 0}

    def training(data: ImageSet) -> Callable[[], object]:
        model = models.build("mobilenet_v3_small").to(gpu)
        return lambda: train(model, data, **settings)

    assert waits(training(few)) == waits(training(many)) > 0
