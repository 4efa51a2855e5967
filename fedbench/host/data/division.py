"""Who gets which images: seeded draws and partitions, as indices (pure functions).

Partitions are those of flwr-datasets 0.6.1, index for index, wherever the two can be equal:
tests compare them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedbench.config.partitions import BySize, Dirichlet, Partition, Replicated, Shards
from fedbench.errors import DataError
from fedbench.host.data.image_folders import Labels

Indices = npt.NDArray[np.int64]
_DIRICHLET_DRAWS = 11


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
    """Divide the training images among `clients` clients: positions in `labels` [N] for each.

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
            shares = _dirichlet(partition, labels[order], clients, random)
        case Shards():
            shares = _shards(partition.per_client, labels[order], clients, random)
        case BySize():
            shares = _by_size(partition, len(labels), clients)
        case _:
            shares = np.array_split(np.arange(len(labels)), clients)
    return [order[share] for share in shares]


def _dirichlet(
    partition: Dirichlet, labels: Labels, clients: int, random: np.random.Generator
) -> list[Indices]:
    """Cut each class of `labels` [N] in proportions drawn from a symmetric Dirichlet(alpha).

    As Yurochkin et al. 2019: each class has a draw of its own, of `clients` proportions (Hsu et
    al. 2019 draw for each client, over the classes). Cuts are rounded down. All classes are drawn
    again, up to ten times, until the smallest client has `min_samples` images. Yurochkin's code
    also gives no more to a client that has more than its even share, `self_balancing` in
    flwr-datasets; here as there it is off, since it makes clients more alike than alpha says.
    """
    # The generator that flwr-datasets would make of the same seed.
    random = np.random.default_rng(int(random.integers(2**32)))
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    counts = np.array([[len(members)] for members in classes])
    for _ in range(_DIRICHLET_DRAWS):
        proportions = random.dirichlet(np.full(clients, partition.alpha), len(classes))
        cuts = (np.cumsum(proportions, axis=1)[:, :-1] * counts).astype(np.int64)
        sizes = np.diff(cuts, axis=1, prepend=0, append=counts).sum(axis=0)
        if sizes.min() >= partition.min_samples:
            break
    else:
        raise _too_few_for_someone(partition, len(labels), clients)
    pieces = [np.split(members, cut) for members, cut in zip(classes, cuts, strict=True)]
    shares = [np.concatenate(of_client) for of_client in zip(*pieces, strict=True)]
    for share in shares:
        random.shuffle(share)
    return shares


def _too_few_for_someone(partition: Dirichlet, images: int, clients: int) -> DataError:
    return DataError(
        f"data.partition: dividing {images} training images among {clients} clients with "
        f"alpha {partition.alpha:g} left some client with fewer than {partition.min_samples}, "
        "in each of eleven draws",
        "set data.partition.min_samples lower, data.partition.alpha or data.train_samples "
        "higher, or another seed",
    )


def _shards(
    per_client: int, labels: Labels, clients: int, random: np.random.Generator
) -> list[Indices]:
    """Sort by class, cut into equal shards and deal `per_client` of them to each client.

    Where N is no multiple of the shards, they differ by one image; flwr-datasets would leave out
    up to as many images as there are shards.
    """
    total = clients * per_client
    if total > len(labels):
        raise DataError(
            f"data.partition: {clients} clients with {per_client} shards each are {total} shards, "
            f"but there are only {len(labels)} training images",
            "set data.partition.per_client lower, or data.train_samples higher",
        )
    shards = np.array_split(np.argsort(labels, kind="stable"), total)
    dealt = random.permutation(total).reshape(clients, per_client)
    return [np.concatenate([shards[shard] for shard in hand]) for hand in dealt]


def _by_size(partition: BySize, images: int, clients: int) -> list[Indices]:
    """Cut the positions 0 to `images` - 1, in their order, into the sizes that are asked for."""
    if partition.sizes is None:
        sizes = _law_sizes(partition.law or "linear", images, clients)
    else:
        _require_fitting(partition.sizes, images, clients)
        sizes = np.array(partition.sizes)
    return np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])


def _law_sizes(law: str, images: int, clients: int) -> Indices:
    """Give the k-th client a share in proportion to k, k^2 or e^k, and the remainder to the last.

    Shares are rounded down.
    """
    k = np.arange(1.0, clients + 1)
    # e^k itself is too large to hold for the 710th client; only its proportions count.
    weights = {"linear": k, "square": k**2, "exponential": np.exp(k - clients)}[law]
    sizes: Indices = (weights / weights.sum() * images).astype(np.int64)
    sizes[-1] += images - sizes.sum()
    if sizes.min() < 1:
        raise DataError(
            f"data.partition: by the {law} law some of {clients} clients would get none "
            f"of {images} training images",
            "set data.partition.law=linear, data.partition.sizes, or data.train_samples higher",
        )
    return sizes


def _require_fitting(sizes: tuple[int, ...], images: int, clients: int) -> None:
    if len(sizes) != clients:
        raise DataError(
            f"data.partition.sizes: {len(sizes)} sizes for {clients} clients",
            "give one size for each client, in the order of `fedbench data`",
        )
    if sum(sizes) > images:
        raise DataError(
            f"data.partition.sizes: they add up to {sum(sizes)}, "
            f"but there are only {images} training images",
            "give smaller sizes, or set data.train_samples higher",
        )
