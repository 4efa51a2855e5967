"""Who gets which images: seeded draws and partitions, as indices (pure functions)."""

from __future__ import annotations

import numpy as np

from fedbench.config.partitions import BySize, Dirichlet, Partition, Replicated, Shards
from fedbench.errors import DataError
from fedbench.host.data import flwr_partitioners
from fedbench.host.data.image_folders import Labels

Indices = flwr_partitioners.Indices


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
    partition: Partition, labels: Labels, clients: int, random: np.random.Generator
) -> list[Indices]:
    """Training images for each of `clients` clients, as positions in `labels` [N].

    Nobody is left without images, and but for `Replicated` no image is given twice.

    Raises:
        DataError: there are too few images for so many clients and such a partition.
    """
    if clients > len(labels):
        raise DataError(
            f"{clients} clients, but only {len(labels)} training images to divide",
            "set data.train_samples higher, or take a profile with fewer clients",
        )
    if isinstance(partition, Replicated):
        return [np.arange(len(labels))] * clients
    order = random.permutation(len(labels))
    match partition:
        case Dirichlet():
            parts = flwr_partitioners.dirichlet(partition, labels[order], clients, random)
        case Shards():
            parts = _shards(partition.per_client, labels[order], clients, random)
        case BySize():
            parts = flwr_partitioners.by_size(partition, len(labels), clients)
        case _:
            # The same parts as flwr_datasets' IidPartitioner on the shuffled data (a test
            # compares them), without the 1.3-1.9 s that importing it costs.
            parts = np.array_split(np.arange(len(labels)), clients)
    return [order[part] for part in parts]


def _shards(
    per_client: int, labels: Labels, clients: int, random: np.random.Generator
) -> list[Indices]:
    """Those of flwr_datasets' ShardPartitioner where they can be equal (a test compares them).

    Where they cannot, it leaves out up to as many images as there are shards; here shards
    differ by one image.
    """
    total = clients * per_client
    if total > len(labels):
        raise DataError(
            f"data.partition: {clients} clients with {per_client} shards each are {total} shards, "
            f"but there are only {len(labels)} training images",
            "set data.partition.per_client lower, or data.train_samples higher",
        )
    shards = np.array_split(np.argsort(labels, kind="stable"), total)
    chosen = random.permutation(total).reshape(clients, per_client)
    return [np.concatenate([shards[shard] for shard in own]) for own in chosen]
