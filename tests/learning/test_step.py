from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from fedbench.learning import models
from fedbench.learning.data import ImageSet
from fedbench.learning.flat import to_flat
from fedbench.learning.optimizers import Adam
from fedbench.learning.recipe import Recipe
from fedbench.learning.step import WARM_UP_STEPS, GraphedStep, Meter, Step, Work, capture

BATCH = 4
SIZES = [BATCH, BATCH, 3, BATCH, BATCH, BATCH, 3, BATCH]  # the last batches of epochs are smaller


class Recorder:
    """Captures as CUDA does: nothing runs until the replay, always on the same memory."""

    def __init__(self) -> None:
        self.captured = 0
        self.replayed = 0

    def __call__(self, work: Work) -> Work:
        self.captured += 1
        return partial(self._replay, work)

    def _replay(self, work: Work) -> None:
        self.replayed += 1
        work()


def image_set(device: str = "cpu") -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (16, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return ImageSet(images.to(device), (torch.arange(16) % 2).to(device), ("a", "b"))


def made(data: ImageSet) -> tuple[nn.Module, Step, Meter]:
    device = data.labels.device
    model = models.build("mobilenet_v2", 2).to(device).train()
    model.classifier[0].p = 0.0  # a graph draws its dropout elsewhere
    meter = Meter(device)
    return model, Step(model, data, Adam(model.parameters(), 0.001), meter), meter


def batches(device: str = "cpu") -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randperm(16, generator=generator)[:size].to(device) for size in SIZES]


def test_graphed_steps_are_the_eager_ones() -> None:
    data, recorder = image_set(), Recorder()
    eager_model, eager, eager_meter = made(data)
    graphed_model, inner, graphed_meter = made(data)
    graphed = GraphedStep(inner, BATCH, torch.device("cpu"), recorder)

    for index in batches():
        eager(index)
        graphed(index)

    # Three to warm up, of whatever size; then one smaller batch, and four full ones.
    assert (recorder.captured, recorder.replayed) == (1, len(SIZES) - WARM_UP_STEPS - 1)
    np.testing.assert_array_equal(to_flat(graphed_model), to_flat(eager_model))
    eager_meter.samples = graphed_meter.samples = sum(SIZES)
    assert graphed_meter.result()[1:] == eager_meter.result()[1:]


def test_nothing_is_left_to_add_to_when_it_captures() -> None:
    """A graph that found gradients would add to them at every replay."""
    data = image_set()
    model, step, _ = made(data)

    def check(work: Work) -> Work:
        assert all(parameter.grad is None for parameter in model.parameters())
        return work

    graphed = GraphedStep(step, BATCH, torch.device("cpu"), check)
    for index in batches():
        graphed(index)

    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures CUDA kernels")
def test_a_graph_trains_as_eager_steps_do() -> None:
    data = image_set("cuda:0")
    eager_model, eager, _ = made(data)
    graphed_model, inner, _ = made(data)
    graphed = GraphedStep(inner, BATCH, torch.device("cuda:0"), capture)

    for index in batches("cuda:0"):
        eager(index)
        graphed(index)

    np.testing.assert_allclose(to_flat(graphed_model), to_flat(eager_model), rtol=1e-2, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures CUDA kernels")
def test_a_graph_reads_the_rate_and_augments_anew() -> None:
    device, recipe = torch.device("cuda:0"), Recipe(optimizer="sgd", augmentation="flip-crop")
    data, rate = image_set("cuda:0"), torch.tensor(0.01, device=device)
    model = models.build("mobilenet_v2", 2).to(device).train()
    model.classifier[0].p = 0.0
    meter = Meter(device)
    step = Step(model, data, recipe.optimize(model, rate), meter, recipe)
    graphed, index = GraphedStep(step, BATCH, device), torch.arange(BATCH, device=device)
    for _ in range(WARM_UP_STEPS + 2):
        graphed(index)

    rate.fill_(0.0)
    before = [parameter.clone() for parameter in model.parameters()]
    losses = []
    for _ in range(4):
        meter.start()
        graphed(index)
        meter.samples = BATCH
        losses.append(meter.result()[1])

    assert all(map(torch.equal, before, model.parameters()))
    assert len(set(losses)) == 4


def test_means_over_samples_of_unequal_batches() -> None:
    meter = Meter(torch.device("cpu"))
    meter.add(torch.tensor(1.0), torch.tensor([[0.0, 1.0]] * 3), torch.tensor([1, 1, 0]))
    meter.add(torch.tensor(5.0), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    meter.samples = 4

    seconds, loss, accuracy, samples = meter.result()

    assert (loss, accuracy, samples) == (pytest.approx(2.0), 0.75, 4)
    assert 0 < seconds <= meter.seconds()


def test_starts_anew_in_the_same_memory() -> None:
    meter = Meter(torch.device("cpu"))
    sums = meter._sums
    meter.add(torch.tensor(1.0), torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    meter.samples = 1

    meter.start()

    assert meter.samples == 0
    assert meter._sums is sums
    assert sums.tolist() == [0, 0]
