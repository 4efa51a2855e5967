"""What becomes of the clients' models: their weighted mean, and the step that it makes."""

from __future__ import annotations

import numpy as np

from fedbench.learning.flat import Flat, Running


class Average:
    """The mean of models, weighted by images; each is added as it comes and not kept.

    With `pooled`, a running variance becomes that of all clients' images together,
    E[var_k + mean_k^2] - mean^2: the mean of the variances alone leaves out how far the clients'
    means are apart.
    """

    def __init__(self, pooled: Running | None = None) -> None:
        self._pooled = pooled
        self._total: Flat | None = None
        # In double precision: the two terms may differ in their last digits only.
        self._first: np.ndarray | float = 0.0
        self._second: np.ndarray | float = 0.0
        self._images = 0

    def add(self, weights: Flat, images: int) -> None:
        """Add the model [P] of a client with so many images; the array is left as it is."""
        if self._pooled:
            means = weights[self._pooled.means].astype(np.float64)
            self._first += images * means
            self._second += images * (weights[self._pooled.variances] + means**2)
        weighted = weights * np.float32(images)
        total = self._total
        self._total = weighted if total is None else np.add(total, weighted, out=total)
        self._images += images

    def result(self) -> Flat | None:
        """Return the mean, [P]; None when nothing was added."""
        if self._total is None:
            return None
        mean: Flat = self._total / np.float32(self._images)
        if self._pooled:
            variances = self._second / self._images - (self._first / self._images) ** 2
            mean[self._pooled.variances] = np.maximum(variances, 0.0)  # rounding goes below
        return mean


class Momentum:
    """FedAvgM (Hsu et al. 2019, arXiv:1909.06335): v = beta v + (w - mean), w = w - v.

    Running statistics are measured, not descended on: they follow the mean, for a variance that
    overshoots may be negative. `velocity` [P] is what a run that goes on begins with.
    """

    def __init__(self, beta: float, running: Running, velocity: Flat | None = None) -> None:
        self.velocity = velocity
        self._beta = np.float32(beta)
        self._measured = np.concatenate([running.means, running.variances])

    def step(self, sent: Flat, mean: Flat) -> Flat:
        """Return the next global model, from the one that was sent and the mean of the replies."""
        change = sent - mean
        self.velocity = change if self.velocity is None else self._beta * self.velocity + change
        stepped: Flat = sent - self.velocity
        stepped[self._measured] = mean[self._measured]
        return stepped
