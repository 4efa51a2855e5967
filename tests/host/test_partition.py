from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.errors import DataError
from fedbench.host.partition import divide, draw, generator

SIZES = st.integers(min_value=1, max_value=300)
SEEDS = st.integers(min_value=0, max_value=2**40)
LABELS = st.lists(st.integers(min_value=0, max_value=5), min_size=1, max_size=300).map(
    lambda labels: np.array(labels, np.int64)
)


@st.composite
def images_and_clients(draw_from: st.DrawFn) -> tuple[int, int]:
    images = draw_from(SIZES)
    return images, draw_from(st.integers(min_value=1, max_value=images))


@given(images_and_clients(), SEEDS)
def test_iid_deals_out_every_image_once_in_shares_that_differ_by_at_most_one(
    size: tuple[int, int], seed: int
) -> None:
    images, clients = size
    parts = divide("iid", np.zeros(images, np.int64), clients, generator(seed, "divide"))
    sizes = [len(part) for part in parts]
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(images))
    assert max(sizes) - min(sizes) <= 1


@given(images_and_clients(), SEEDS)
def test_the_same_seed_divides_alike(size: tuple[int, int], seed: int) -> None:
    images, clients = size
    labels = np.zeros(images, np.int64)
    first = divide("iid", labels, clients, generator(seed, "divide"))
    again = divide("iid", labels, clients, generator(seed, "divide"))
    assert [part.tolist() for part in first] == [part.tolist() for part in again]


@given(SEEDS)
def test_another_seed_and_another_purpose_divide_differently(seed: int) -> None:
    labels = np.zeros(200, np.int64)
    parts = [
        divide("iid", labels, 2, random)[0].tolist()
        for random in (
            generator(seed, "divide"),
            generator(seed + 1, "divide"),
            generator(seed, "train"),
        )
    ]
    assert parts[0] != parts[1]
    assert parts[0] != parts[2]


def test_iid_is_the_partition_of_flower_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    partitioners = pytest.importorskip("flwr_datasets.partitioner")
    order = generator(3, "divide").permutation(1000)
    theirs = partitioners.IidPartitioner(num_partitions=7)
    theirs.dataset = datasets.Dataset.from_dict({"index": order})
    expected = [list(theirs.load_partition(client)["index"]) for client in range(7)]
    ours = divide("iid", np.zeros(1000, np.int64), 7, generator(3, "divide"))
    assert [part.tolist() for part in ours] == expected


@given(images_and_clients())
def test_replicated_gives_everyone_everything(size: tuple[int, int]) -> None:
    images, clients = size
    parts = divide("replicated", np.zeros(images, np.int64), clients, generator(0, "divide"))
    assert [part.tolist() for part in parts] == [list(range(images))] * clients


@given(SIZES, st.sampled_from(["iid", "replicated"]))
def test_more_clients_than_images_is_refused(images: int, partition: str) -> None:
    with pytest.raises(DataError, match=f"{images + 1} clients, but only {images} training images"):
        divide(partition, np.zeros(images, np.int64), images + 1, generator(0, "divide"))


@given(LABELS, st.integers(min_value=1, max_value=400), SEEDS)
def test_draw_keeps_the_proportions_of_the_classes(
    labels: np.typing.NDArray[np.int64], samples: int, seed: int
) -> None:
    drawn = draw(labels, samples, generator(seed, "train"))
    expected = min(samples, len(labels))
    assert len(drawn) == expected
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    exact = np.bincount(labels, minlength=6) * expected / len(labels)
    # Six classes: the others' roundings can push one class past its nearest integer, no further.
    assert np.abs(np.bincount(labels[drawn], minlength=6) - exact).max() < 3


@given(LABELS, SEEDS)
def test_draw_takes_all_when_nothing_is_asked_for(
    labels: np.typing.NDArray[np.int64], seed: int
) -> None:
    assert draw(labels, None, generator(seed, "train")).tolist() == list(range(len(labels)))


def test_draw_of_balanced_classes_is_balanced_and_depends_on_the_seed() -> None:
    labels = np.repeat(np.arange(10), 50)
    first = draw(labels, 100, generator(0, "train"))
    assert np.bincount(labels[first]).tolist() == [10] * 10
    assert first.tolist() == draw(labels, 100, generator(0, "train")).tolist()
    assert first.tolist() != draw(labels, 100, generator(1, "train")).tolist()
