"""Small trainings whose results are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedbench.learning import models
from fedbench.learning import train as training
from fedbench.learning.data import ImageSet
from fedbench.learning.flat import Flat, to_flat
from fedbench.learning.step import GraphedStep, Step

BATCH = 32 if torch.cuda.is_available() else 16
# Full batches for warming up, for capturing and for replays, and a smaller one.
IMAGES = (11 if torch.cuda.is_available() else 4) * BATCH + 12

Taken = Callable[[torch.device, Step, int], Callable[[Tensor], None]]
"""How the steps of a training are taken."""


def eager(device: torch.device, step: Step, batch_size: int) -> Callable[[Tensor], None]:
    return step


def captured(device: torch.device, step: Step, batch_size: int) -> Callable[[Tensor], None]:
    """From a CUDA graph; on the CPU, where there is none, the same bookkeeping without one."""
    if device.type == "cuda":
        return GraphedStep(step, batch_size, device)
    return GraphedStep(step, batch_size, device, capture=lambda work: work)


def image_set(count: int, device: torch.device) -> ImageSet:
    """Noise over a brightness that gives the class, of ten, away."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 10
    noise = torch.randint(80, (count, 32, 32, 3), generator=generator)
    images = (noise + 16 * labels.reshape(-1, 1, 1, 1)).to(torch.uint8)
    return ImageSet(images.to(device), labels.to(device), tuple("0123456789"))


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@dataclass(frozen=True)
class Outcome:
    """Weights before and after, and the mean loss of each epoch."""

    start: Flat
    weights: Flat
    losses: list[float]


def trained(
    taken: Taken, name: str, device: torch.device, *, dropout: bool = False, **settings: Any
) -> Outcome:
    """Train with the product's loop, but with the steps taken this way."""
    model = models.build(name).to(device)
    if not dropout:
        without_dropout(model)
    start = to_flat(model)
    chosen = {"epochs": 2, "batch_size": BATCH, "learning_rate": 0.001, "seed": 1} | settings
    before = training._on
    training._on = taken
    try:
        epochs = training.train(model, image_set(IMAGES, device), **chosen)
    finally:
        training._on = before
    return Outcome(start, to_flat(model), [epoch.loss for epoch in epochs])


def distance(ours: Outcome, other: Outcome) -> float:
    """Say how far two trainings ended apart, as a part of the way that one of them went."""
    way = np.linalg.norm(other.weights - other.start)
    return float(np.linalg.norm(ours.weights - other.weights) / way)
