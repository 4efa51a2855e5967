"""Loss and accuracy over many batches, summed where the model is."""

from __future__ import annotations

from time import perf_counter

import torch
from torch import Tensor


class Meter:
    """Runs from its start; the sums stay on the device until they are asked for."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, device=device)
        self.start()

    def start(self) -> None:
        """Begins anew, in the same memory: a captured step adds to it."""
        self._sums.zero_()
        self.samples = 0
        self._start = perf_counter()

    def add(self, mean_loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch on the device; its samples are for the caller to count."""
        correct = (logits.argmax(1) == labels).sum()
        self._sums += torch.stack([mean_loss.detach() * len(labels), correct])

    def seconds(self) -> float:
        """Wall seconds since the start."""
        return perf_counter() - self._start

    def result(self) -> tuple[float, float, float, int]:
        """Seconds, mean loss, accuracy and samples; waits for the device."""
        loss, correct = self._sums.tolist()
        return self.seconds(), loss / self.samples, correct / self.samples, self.samples
