"""What becomes of the clients' models: their weighted mean, and the step that it makes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedbench.learning.flat import Flat, Running

_CHUNK = 32_768  # numbers: what is worked on stays in a core's cache

Doubles = NDArray[np.float64]


class ExactSum:
    """The sum of arrays [P], without any rounding: their order cannot matter.

    The first level is the running sum in double precision. What rounding takes from a level is a
    double itself (Knuth's two-sum): it is added to the next level, and is zero for almost all
    numbers. So all levels together are the sum.
    """

    def __init__(self) -> None:
        self._levels: list[Doubles] = []

    def add(self, values: NDArray[np.floating], factor: float = 1) -> None:
        """Add `factor` times the finite values; they are left as they are.

        A product of single precision and a whole number below 2**29 is exact. Others are rounded to
        doubles, each for itself.
        """
        total = self._level(0, values.size)
        product, *work = np.empty((4, min(_CHUNK, values.size)))
        for start in range(0, values.size, _CHUNK):
            chunk = slice(start, start + _CHUNK)
            left = product[: values[chunk].size]
            np.multiply(values[chunk], float(factor), out=left, dtype=np.float64)
            _accumulate(total[chunk], left, work)
            places = np.flatnonzero(left != 0)
            self._keep(1, start + places, left[places])

    def rounded(self) -> Doubles | None:
        """Return the double next to each sum, [P]; None when nothing was added."""
        if not self._levels:
            return None
        total = self._levels[0].copy()
        for level in self._levels[1:2]:
            total += level
        if deeper := self._levels[2:]:  # where summands are further apart than two doubles hold
            for place in np.flatnonzero(np.any(deeper, axis=0)):
                total[place] = math.fsum(level[place] for level in self._levels)
        return total

    def _keep(self, depth: int, places: NDArray[np.intp], left: Doubles) -> None:
        """Add what rounding left over, at some places, to the level at `depth`, and so on."""
        while places.size:
            level = self._level(depth, self._levels[0].size)
            total = level[places]
            _accumulate(total, left, list(np.empty((3, left.size))))
            level[places] = total
            some = left != 0
            depth, places, left = depth + 1, places[some], left[some]

    def _level(self, depth: int, size: int) -> Doubles:
        if depth == len(self._levels):
            self._levels.append(np.zeros(size))
        return self._levels[depth]


def _accumulate(total: Doubles, value: Doubles, work: list[Doubles]) -> None:
    """Add `value` to `total`; `value` becomes what rounding took from the sum."""
    rounded, added, before = (buffer[: value.size] for buffer in work)
    np.add(total, value, out=rounded)
    np.subtract(rounded, total, out=added)
    np.subtract(rounded, added, out=before)
    np.subtract(total, before, out=before)
    np.subtract(value, added, out=value)
    np.add(value, before, out=value)
    total[:] = rounded


class Average:
    """The mean of models, weighted by images; each is added as it comes and not kept.

    A weight need not be whole, as that of an update which comes late.

    The order in which they come does not change a bit of it. A zero has no sign.

    With `pooled`, a running variance becomes that of all clients' images together,
    E[var_k + mean_k^2] - mean^2: the mean of the variances alone leaves out how far the clients'
    means are apart.
    """

    def __init__(self, pooled: Running | None = None) -> None:
        self._pooled = pooled
        self._total = ExactSum()
        self._first, self._second = ExactSum(), ExactSum()  # moments of the running statistics
        self._images: list[float] = []

    @property
    def models(self) -> int:
        """Return how many were added."""
        return len(self._images)

    def add(self, weights: Flat, images: float) -> None:
        """Add the model [P] of a client with so many images; the array is left as it is."""
        if self._pooled:
            means = weights[self._pooled.means].astype(np.float64)
            self._first.add(means, images)
            self._second.add(weights[self._pooled.variances] + means**2, images)
        self._total.add(weights, images)
        self._images.append(images)

    def result(self) -> Flat | None:
        """Return the mean, [P]; None when nothing was added."""
        total = self._total.rounded()
        if total is None:
            return None
        images = math.fsum(self._images)  # exact, in whatever order they came
        total /= images
        mean = total.astype(np.float32)
        first, second = self._first.rounded(), self._second.rounded()
        if self._pooled and first is not None and second is not None:
            variances = second / images - (first / images) ** 2
            # Rounding goes below, and means far apart above.
            mean[self._pooled.variances] = np.clip(variances, 0.0, np.finfo(np.float32).max)
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
