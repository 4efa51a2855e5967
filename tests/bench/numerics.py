"""Do our steps train as plain ones do? Loss curves of 200 steps, against what a seed changes.

From the same weights, on the same batches of digits, two trainings that differ in rounding alone
drift apart: so the distance between our curve and the plain one is held against the distance
between plain curves of different seeds. Curves are means over 10 steps; their distance is the mean
absolute difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, cycle, islice
from statistics import fmean

import torch
from row import Row, row
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.host.data import digits
from fedbench.learning import flat, models
from fedbench.learning.data import ImageSet
from fedbench.learning.optimizers import Adam
from fedbench.learning.step import Meter, Step
from fedbench.learning.train import shuffled_batches

SEEDS, STEPS, BATCH, WINDOW = 5, 200, 32, 10
LEARNING_RATE = 0.001
CPU = torch.device("cpu")

Curve = list[float]


def rows(command: str) -> Iterator[Row]:
    torch.set_num_threads(1)
    split, _ = digits.load()
    data = ImageSet(torch.from_numpy(split.images), torch.from_numpy(split.labels), digits.CLASSES)
    for name in models.MODELS:
        ours = [our_curve(name, data, seed) for seed in range(SEEDS)]
        plain = [plain_curve(name, data, seed) for seed in range(SEEDS)]
        from_plain = [distance(a, b) for a, b in zip(ours, plain, strict=True)]
        from_seeds = [distance(a, b) for a, b in combinations(plain, 2)]
        unit = "mean difference of loss"
        yield row(f"numerics_{name}", from_plain, unit, command, from_seeds, more_is_better=False)


def our_curve(name: str, data: ImageSet, seed: int) -> Curve:
    """Losses of our steps."""
    model, meter = models.build(name, 10, seed).train(), Meter(CPU)
    step = Step(model, data, Adam(model.parameters(), LEARNING_RATE), meter)
    losses = []
    torch.manual_seed(seed)
    for index in batches(data, seed):
        meter.start()
        step(index)
        meter.samples = len(index)
        losses.append(meter.result()[1])
    return smoothed(losses)


def plain_curve(name: str, data: ImageSet, seed: int) -> Curve:
    """Losses of plain steps: torch's layers and optimizer, contiguous."""
    model = plain_model(name, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    losses = []
    torch.manual_seed(seed)
    for index in batches(data, seed):
        images, labels = data.batch(index)
        optimizer.zero_grad()
        loss = cross_entropy(model(images.contiguous()), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return smoothed(losses)


def plain_model(name: str, seed: int) -> nn.Module:
    """The weights that ours starts from, in torch's own layers."""
    model = models.MODELS[name](num_classes=10, weights=None)
    flat.from_flat(model, flat.to_flat(models.build(name, 10, seed)))
    return model.train()


def batches(data: ImageSet, seed: int) -> Iterator[Tensor]:
    order = torch.Generator().manual_seed(seed)
    epochs = (shuffled_batches(len(data), BATCH, order) for _ in cycle([None]))
    return islice((batch for epoch in epochs for batch in epoch), STEPS)


def smoothed(losses: Curve) -> Curve:
    return [fmean(losses[first : first + WINDOW]) for first in range(0, len(losses), WINDOW)]


def distance(a: Curve, b: Curve) -> float:
    return fmean(abs(x - y) for x, y in zip(a, b, strict=True))
