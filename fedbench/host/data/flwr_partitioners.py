"""Partitions by the partitioners of flwr-datasets, as positions.

They are imported when used: that costs 1.3-1.9 s.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbench.config.partitions import BySize, Dirichlet
from fedbench.errors import DataError

Indices = npt.NDArray[np.int64]


def dirichlet(
    partition: Dirichlet, labels: Indices, clients: int, random: np.random.Generator
) -> list[Indices]:
    """Divide `labels` [N] among `clients`.

    Raises:
        DataError: no draw gave every client as many images as it must have.
    """
    from flwr_datasets.partitioner import DirichletPartitioner  # noqa: PLC0415

    partitioner = DirichletPartitioner(
        clients,
        partition_by="label",
        alpha=partition.alpha,
        min_partition_size=partition.min_samples,
        seed=int(random.integers(2**32)),
    )
    try:
        with warnings.catch_warnings(action="ignore"):  # one for each draw that is repeated
            return _parts(partitioner, labels, clients)
    except ValueError:
        raise DataError(
            f"data.partition: dividing {len(labels)} training images among {clients} clients with "
            f"alpha {partition.alpha:g} left some client with fewer than {partition.min_samples}, "
            "in each of eleven draws",
            "set data.partition.min_samples lower, data.partition.alpha or data.train_samples "
            "higher, or another seed",
        ) from None


def by_size(partition: BySize, images: int, clients: int) -> list[Indices]:
    """Divide the positions 0 to `images` - 1 among `clients`, in their order.

    Raises:
        DataError: not one size per client, more than there is, or a client would have none.
    """
    from flwr_datasets import partitioner as partitioners  # noqa: PLC0415

    if partition.sizes is None:
        laws = {
            "linear": partitioners.LinearPartitioner,
            "square": partitioners.SquarePartitioner,
            "exponential": partitioners.ExponentialPartitioner,
        }
        partitioner = laws[partition.law or "linear"](clients)
    else:
        _check(partition.sizes, images, clients)
        images = sum(partition.sizes)
        partitioner = partitioners.SizePartitioner(partition.sizes)
    try:
        return _parts(partitioner, np.zeros(images, np.int64), clients)
    except ValueError:
        raise DataError(
            f"data.partition: by the {partition.law} law some of {clients} clients would get none "
            f"of {images} training images",
            "set data.partition.law=linear, data.partition.sizes, or data.train_samples higher",
        ) from None


def _check(sizes: tuple[int, ...], images: int, clients: int) -> None:
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


def _parts(partitioner: Any, labels: Indices, clients: int) -> list[Indices]:
    from datasets import Dataset  # noqa: PLC0415

    columns = {"label": labels, "position": np.arange(len(labels))}
    partitioner.dataset = Dataset.from_dict(columns)
    loaded = (partitioner.load_partition(client) for client in range(clients))
    return [np.array(part["position"][:], np.int64) for part in loaded]
