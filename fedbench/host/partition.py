"""Who gets which images: seeded draws and partitions, as indices (pure functions)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedbench.errors import DataError
from fedbench.host.images import Labels

Indices = npt.NDArray[np.int64]


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Give a random stream of its own for each seed and purpose."""
    return np.random.default_rng([seed, *purpose.encode()])


def draw(labels: Labels, samples: int | None, random: np.random.Generator) -> Indices:
    """Draw a random subset with the classes in the proportions of `labels` [N], rounded.

    Returns the positions in ascending order: `samples` of them, or all N when `samples` is None
    or above N.
    """
    if samples is None or samples >= len(labels):
        return np.arange(len(labels))
    # The r-th image (in random order) of a class of n stands at (r + 1/2) / n: classes advance
    # side by side, so every prefix of this order holds each in its proportion.
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[random.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.lexsort((random.random(len(labels)), place))
    return np.sort(order[:samples])


def divide(
    partition: str, labels: Labels, clients: int, random: np.random.Generator
) -> list[Indices]:
    """Training images for each of `clients` clients, as positions in `labels` [N].

    `replicated`: every client holds all of them (Negi & Chinara). `iid`: shuffled and dealt out
    whole, sizes differ by at most one.

    Raises:
        DataError: there are more clients than images.
    """
    if clients > len(labels):
        raise DataError(
            f"{clients} clients, but only {len(labels)} training images to divide",
            "set data.train_samples higher, or take a profile with fewer clients",
        )
    if partition == "replicated":
        return [np.arange(len(labels))] * clients
    # The same parts as flwr_datasets' IidPartitioner on the shuffled data (a test compares them),
    # without the 1.3-1.9 s that importing it costs.
    return np.array_split(random.permutation(len(labels)), clients)
