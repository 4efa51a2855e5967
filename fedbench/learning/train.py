"""Local training and evaluation: a plain PyTorch loop, the same on a CPU and on a GPU.

Loss and accuracy add up on the device and are fetched once an epoch: a GPU never waits for Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.learning.data import ImageSet
from fedbench.learning.processor import Precision, arithmetic
from fedbench.learning.recipe import Recipe
from fedbench.learning.step import GraphedStep, Meter, Step


@dataclass(frozen=True)
class Progress:
    """A training after a batch; epochs and batches count from 1.

    `samples` and wall `seconds` are of this epoch so far. A GPU may still be at work on the batch.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    samples: int
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """One epoch of training: wall seconds, and mean loss and accuracy (0 to 1) over its samples.

    The means are taken while the weights change, as Keras reports them, not after the epoch.
    """

    seconds: float
    loss: float
    accuracy: float
    samples: int


@dataclass(frozen=True)
class Evaluation:
    """Wall seconds, mean loss and accuracy (0 to 1) of a model on a data set.

    `confusion[actual][predicted]` counts its images.
    """

    seconds: float
    loss: float
    accuracy: float
    samples: int
    confusion: list[list[int]]


def train(
    model: nn.Module,
    data: ImageSet,
    *,
    epochs: int,
    seconds: float = 0.0,
    batch_size: int,
    learning_rate: float,
    seed: int,
    precision: Precision = "fp32",
    recipe: Recipe = Recipe(),  # noqa: B008 (it is frozen)
    on_batch: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train the model in place on shuffled batches, and return what each epoch gave.

    Further epochs begin until `seconds` have passed since the first one began.

    A fresh optimizer each time, as FedAvg's ClientUpdate has it. The seed decides order, dropout
    and augmentation: give each client and round its own. What a callback raises ends the training
    and propagates; the global random state and the model's mode are restored then, too.

    Raises:
        ValueError: fewer than two images in a batch, which batch normalisation cannot train on.
    """
    if min(batch_size, len(data)) < 2:
        raise ValueError(
            f"batch normalisation needs batches of at least 2 images, "
            f"found {len(data)} images and a batch size of {batch_size}"
        )
    order = torch.Generator().manual_seed(seed)
    device = data.labels.device
    meter = Meter(device)
    rate = _Rate(recipe, learning_rate, device)
    optimizer = recipe.optimize(model, rate.value)
    step = _on(device, Step(model, data, optimizer, meter, recipe), batch_size)
    results = []
    with _mode(model, training=True), _seeded(device, seed), arithmetic(precision, device):
        start = time.perf_counter()
        for epoch in count(1):
            if epoch > epochs and time.perf_counter() - start >= seconds:
                break
            meter.start()
            batches = shuffled_batches(len(data), batch_size, order, device)
            for batch, index in enumerate(batches, 1):
                rate.at((epoch - 1 + (batch - 1) / len(batches)) / epochs)
                step(index)
                meter.samples += len(index)
                if on_batch:
                    done = (meter.samples, meter.seconds())
                    on_batch(Progress(epoch, max(epoch, epochs), batch, len(batches), *done))
            results.append(Epoch(*meter.result()))
            if on_epoch:
                on_epoch(results[-1])
    return results


def evaluate(
    model: nn.Module,
    data: ImageSet,
    *,
    batch_size: int = 128,
    precision: Precision = "fp32",
    on_batch: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Evaluate the model on all images; larger batches are no faster on a CPU.

    `on_batch` is called before each batch; what it raises ends the evaluation.
    """
    device = data.labels.device
    meter = Meter(device)
    size = len(data.classes)
    confusion = torch.zeros(size * size, dtype=torch.int64, device=device)
    with _mode(model, training=False), torch.inference_mode(), arithmetic(precision, device):
        for first in range(0, len(data), batch_size):
            on_batch()
            images, labels = data.batch(slice(first, first + batch_size))
            logits = model(images)
            meter.add(cross_entropy(logits, labels), logits, labels)
            meter.samples += len(labels)
            pairs = labels * size + logits.argmax(1)
            # bincount would wait for a GPU to learn how many bins it needs.
            confusion.index_add_(0, pairs, torch.ones_like(pairs))
    return Evaluation(*meter.result(), confusion.view(size, size).tolist())


def shuffled_batches(
    samples: int, batch_size: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Shuffle the indices of all samples; a last single one joins the batch before it."""
    order = torch.randperm(samples, generator=generator).to(device)
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


class _Rate:
    """The learning rate: a number where it is constant, else a scalar that captured steps read."""

    def __init__(self, recipe: Recipe, peak: float, device: torch.device) -> None:
        self._recipe = recipe
        self._peak = peak
        constant = recipe.schedule == "constant"
        self.value = peak if constant else torch.tensor(peak, device=device)

    def at(self, done: float) -> None:
        """Set the value to what it is when `done` (0 to 1) of the training is over."""
        if isinstance(self.value, Tensor):
            self.value.fill_(self._peak * self._recipe.factor(done))


def _on(device: torch.device, step: Step, batch_size: int) -> Callable[[Tensor], None]:
    return GraphedStep(step, batch_size, device) if device.type == "cuda" else step


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Draw dropout from the seed, and leave the device's random state as it was."""
    gpu = device.type == "cuda"
    generator = torch.cuda.default_generators[device.index] if gpu else torch.default_generator
    with torch.random.fork_rng(devices=[device] if gpu else []):
        generator.manual_seed(seed)
        yield
