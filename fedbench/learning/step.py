"""One step of training: eager, or the whole of it as one CUDA graph.

At batches of 32 small images a GPU waits for its orders: a step of MobileNetV2 launches some
thousand kernels of a few microseconds each. A graph launches them all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.learning.data import ImageSet
from fedbench.learning.optimizers import Optimizer
from fedbench.learning.recipe import Recipe

# Libraries allocate their workspaces and choose their kernels in the first steps.
WARM_UP_STEPS = 3

Work = Callable[[], None]


class Meter:
    """Sums loss and accuracy over many batches, on the device, until they are asked for."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, device=device)
        self.start()

    def start(self) -> None:
        """Begin anew, in the same memory: a captured step adds to it."""
        self._sums.zero_()
        self.samples = 0
        self._start = perf_counter()

    def add(self, mean_loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch on the device; the caller counts its samples."""
        correct = (logits.argmax(1) == labels).sum()
        self._sums += torch.stack([mean_loss.detach() * len(labels), correct])

    def seconds(self) -> float:
        """Return wall seconds since the start."""
        return perf_counter() - self._start

    def result(self) -> tuple[float, float, float, int]:
        """Wait for the device; return seconds, mean loss, accuracy and samples."""
        loss, correct = self._sums.tolist()
        return self.seconds(), loss / self.samples, correct / self.samples, self.samples


class Step:
    """Trains on the images of a batch, given as int64 indices [n] on the data's device."""

    def __init__(
        self,
        model: nn.Module,
        data: ImageSet,
        optimizer: Optimizer,
        meter: Meter,
        recipe: Recipe = Recipe(),  # noqa: B008 (it is frozen)
    ) -> None:
        self._model = model
        self._data = data
        self._optimizer = optimizer
        self._meter = meter
        self._augment = recipe.augment()
        self._smoothing = recipe.label_smoothing

    def __call__(self, index: Tensor) -> None:
        """Take a step, without waiting for the device."""
        self.forget()
        images, labels = self._data.batch(index, self._augment)
        logits = self._model(images)
        loss = cross_entropy(logits, labels, label_smoothing=self._smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._meter.add(loss, logits, labels)

    def forget(self) -> None:
        """Drop the gradients of the last step."""
        self._optimizer.zero_grad()


def capture(work: Work) -> Work:
    """Record the CUDA kernels of `work` without running them; the result runs them."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class GraphedStep:
    """The same step on full batches from one graph; batches of another size run eagerly.

    The first steps train, too, but eagerly, so that nothing has to be undone after warming up.
    """

    def __init__(
        self,
        step: Step,
        batch_size: int,
        device: torch.device,
        capture: Callable[[Work], Work] = capture,
    ) -> None:
        self._step = step
        self._index = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self._capture = capture
        self._warm_up = WARM_UP_STEPS
        self._replay: Work | None = None

    def __call__(self, index: Tensor) -> None:
        """Take a step, without waiting for the device."""
        if len(index) != len(self._index) or self._warm_up > 0:
            self._warm_up -= 1
            self._step(index)
            return
        self._index.copy_(index)
        if self._replay is None:
            # Gradients that exist would be added to: the graph makes its own.
            self._step.forget()
            self._replay = self._capture(partial(self._step, self._index))
        self._replay()
