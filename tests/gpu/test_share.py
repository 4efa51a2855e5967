"""A client's part of a GPU: of its memory, and of its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from trainings import BATCH, IMAGES, image_set

from fedbench.learning import models
from fedbench.learning.processor import TimeShare, limit_memory
from fedbench.learning.train import train

QUARTER = 4


@pytest.fixture
def quarter(gpu: torch.device) -> Iterator[int]:
    """A quarter of the GPU's memory, to which this process is limited: its size in bytes."""
    memory = torch.cuda.get_device_properties(gpu).total_memory // QUARTER
    torch.cuda.empty_cache()
    assert limit_memory(memory, gpu) == pytest.approx(1 / QUARTER, rel=1e-6)
    yield memory
    limit_memory(QUARTER * memory, gpu)
    torch.cuda.empty_cache()


def test_memory_beyond_the_limit_is_refused(gpu: torch.device, quarter: int) -> None:
    first = torch.empty(int(0.6 * quarter), dtype=torch.uint8, device=gpu)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(int(0.6 * quarter), dtype=torch.uint8, device=gpu)
    del first
    torch.empty(int(0.9 * quarter), dtype=torch.uint8, device=gpu)


def test_more_than_there_is_is_no_limit(gpu: torch.device, quarter: int) -> None:
    assert limit_memory(8 * quarter, gpu) == 1.0
    torch.empty(2 * quarter, dtype=torch.uint8, device=gpu)


def test_a_training_goes_on_after_it_was_refused_memory(gpu: torch.device, quarter: int) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(2 * quarter, dtype=torch.uint8, device=gpu)

    model = models.build("mobilenet_v3_small").to(gpu)
    data = image_set(IMAGES, gpu)
    (epoch,) = train(model, data, epochs=1, batch_size=BATCH, learning_rate=0.001, seed=0)

    assert epoch.samples == IMAGES


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_share_of_time_takes_so_much_longer(
    share: float, gpu: torch.device, record: Callable[[str, float], None]
) -> None:
    """Against the same training that waits for each batch, too, but for nobody else."""
    whole, part = (seconds(gpu, wanted) for wanted in (1.0, share))
    record("share of the time", whole / part)

    # Sleeping takes a little longer than it was asked to.
    assert 0.7 * share < whole / part < 1.25 * share


def seconds(gpu: torch.device, share: float) -> float:
    """Of an epoch but its first step, at the median of three epochs; one before is to warm up."""
    data, model = image_set(IMAGES, gpu), models.build("mobilenet_v3_small").to(gpu)
    part = TimeShare(share, partial(torch.cuda.synchronize, gpu))
    ends: list[float] = []

    def on_batch(progress: object) -> None:
        part.after_batch()
        ends.append(time.perf_counter())

    settings = {"batch_size": BATCH, "learning_rate": 0.001, "seed": 0}
    train(model, data, epochs=4, **settings, on_batch=on_batch)
    steps = len(ends) // 4
    laps = [ends[i + steps - 1] - ends[i] for i in range(steps, len(ends), steps)]
    return sorted(laps)[len(laps) // 2]
