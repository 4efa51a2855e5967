"""One step of training: eager, or the whole of it as one CUDA graph.

At batches of 32 small images a GPU waits for its orders: a step of MobileNetV2 launches some
thousand kernels of a few microseconds each. A graph launches them all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.learning.data import ImageSet
from fedbench.learning.meter import Meter
from fedbench.learning.optimizer import Optimizer
from fedbench.learning.recipe import Recipe

# Libraries allocate their workspaces and choose their kernels in the first steps.
WARM_UP_STEPS = 3

Work = Callable[[], None]


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
        """One step, without waiting for the device."""
        self.forget()
        images, labels = self._data.batch(index, self._augment)
        logits = self._model(images)
        loss = cross_entropy(logits, labels, label_smoothing=self._smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._meter.add(loss, logits, labels)

    def forget(self) -> None:
        """Drops the gradients of the last step."""
        self._optimizer.zero_grad()


def capture(work: Work) -> Work:
    """Records the CUDA kernels of `work` without running them; the result runs them."""
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
        """One step, without waiting for the device."""
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
