from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    ExponentialPartitioner,
    IidPartitioner,
    LinearPartitioner,
    Partitioner,
    ShardPartitioner,
    SizePartitioner,
    SquarePartitioner,
)
from hypothesis import given
from hypothesis import strategies as st

from fedbench.config.partitions import BySize, Dirichlet, Iid, Partition, Replicated, Shards
from fedbench.errors import DataError
from fedbench.host.data.division import Indices, divide, draw, generator

SIZES = st.integers(min_value=1, max_value=300)
SEEDS = st.integers(min_value=0, max_value=2**40)
LABELS = st.lists(st.integers(min_value=0, max_value=5), min_size=1, max_size=300).map(
    lambda labels: np.array(labels, np.int64)
)
ALL = (Iid(), Replicated(), Dirichlet(), Shards(), BySize(), BySize(sizes=(1, 2)))
# Each divides 240 images or more among up to six clients.
WAYS = st.one_of(
    st.just(Iid()),
    st.builds(Dirichlet, alpha=st.floats(0.5, 100), min_samples=st.just(1)),
    st.builds(Shards, per_client=st.integers(1, 20)),
    st.builds(BySize, law=st.sampled_from(["linear", "square", "exponential"])),
)
MANY_LABELS = st.lists(st.integers(0, 5), min_size=240, max_size=300).map(
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
    parts = divide(Iid(), np.zeros(images, np.int64), clients, generator(seed, "divide"))
    sizes = [len(part) for part in parts]
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(images))
    assert max(sizes) - min(sizes) <= 1


@given(images_and_clients(), SEEDS)
def test_the_same_seed_divides_alike(size: tuple[int, int], seed: int) -> None:
    images, clients = size
    labels = np.zeros(images, np.int64)
    first = divide(Iid(), labels, clients, generator(seed, "divide"))
    again = divide(Iid(), labels, clients, generator(seed, "divide"))
    assert [part.tolist() for part in first] == [part.tolist() for part in again]


@given(SEEDS)
def test_another_seed_and_another_purpose_divide_differently(seed: int) -> None:
    labels = np.zeros(200, np.int64)
    parts = [
        divide(Iid(), labels, 2, random)[0].tolist()
        for random in (
            generator(seed, "divide"),
            generator(seed + 1, "divide"),
            generator(seed, "train"),
        )
    ]
    assert parts[0] != parts[1]
    assert parts[0] != parts[2]


def flower_datasets(partitioner: Partitioner, order: Indices, labels: Indices) -> list[list[int]]:
    """What flwr-datasets gives each client of `labels` in this order, as positions in `labels`."""
    partitioner.dataset = Dataset.from_dict({"label": labels[order], "index": order})
    clients = range(partitioner.num_partitions)
    return [list(partitioner.load_partition(client)["index"]) for client in clients]


def listed(parts: list[Indices]) -> list[list[int]]:
    return [part.tolist() for part in parts]


def test_iid_is_the_partition_of_flower_datasets() -> None:
    labels = np.zeros(1000, np.int64)
    order = generator(3, "divide").permutation(1000)
    expected = flower_datasets(IidPartitioner(7), order, labels)
    assert listed(divide(Iid(), labels, 7, generator(3, "divide"))) == expected


@pytest.mark.filterwarnings("ignore:The specified min_partition_size:UserWarning")  # drawn again
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("alpha", "least", "clients"), [(0.05, 1, 3), (0.5, 10, 7), (1.0, 90, 5), (10_000.0, 1, 1)]
)
def test_dirichlet_is_the_partition_of_flower_datasets(
    alpha: float, least: int, clients: int, seed: int
) -> None:
    labels = np.concatenate([np.arange(900) * 7 % 10, np.full(100, 12)])
    random = generator(seed, "divide")
    order = random.permutation(1000)
    theirs = DirichletPartitioner(
        clients, "label", alpha, min_partition_size=least, seed=int(random.integers(2**32))
    )
    expected = flower_datasets(theirs, order, labels)
    way = Dirichlet(alpha=alpha, min_samples=least)
    assert listed(divide(way, labels, clients, generator(seed, "divide"))) == expected


@pytest.mark.parametrize(
    ("law", "partitioner"),
    [
        ("linear", LinearPartitioner),
        ("square", SquarePartitioner),
        ("exponential", ExponentialPartitioner),
    ],
)
@pytest.mark.parametrize(("clients", "images"), [(1, 1), (2, 7), (5, 487), (7, 5003)])
def test_sizes_by_a_law_are_those_of_flower_datasets(
    law: str, partitioner: type[Partitioner], clients: int, images: int
) -> None:
    labels = np.zeros(images, np.int64)
    order = generator(3, "divide").permutation(images)
    expected = flower_datasets(partitioner(clients), order, labels)
    ours = divide(BySize(law=law), labels, clients, generator(3, "divide"))
    assert listed(ours) == expected


@pytest.mark.filterwarnings("ignore:The sum of partition sizes:UserWarning")  # some left over
def test_given_sizes_are_those_of_flower_datasets() -> None:
    labels = np.zeros(100, np.int64)
    order = generator(3, "divide").permutation(100)
    expected = flower_datasets(SizePartitioner([5, 60, 1]), order, labels)
    ours = divide(BySize(sizes=(5, 60, 1)), labels, 3, generator(3, "divide"))
    assert listed(ours) == expected


@given(images_and_clients())
def test_replicated_gives_everyone_everything(size: tuple[int, int]) -> None:
    images, clients = size
    parts = divide(Replicated(), np.zeros(images, np.int64), clients, generator(0, "divide"))
    assert [part.tolist() for part in parts] == [list(range(images))] * clients


@given(SIZES, st.sampled_from(ALL))
def test_more_clients_than_images_is_refused(images: int, partition: Partition) -> None:
    with pytest.raises(DataError, match=f"{images + 1} clients, but only {images} training images"):
        divide(partition, np.zeros(images, np.int64), images + 1, generator(0, "divide"))


@given(WAYS, MANY_LABELS, st.integers(1, 6), SEEDS)
def test_every_image_is_given_once_and_nobody_is_left_without(
    way: Partition, labels: Indices, clients: int, seed: int
) -> None:
    parts = divide(way, labels, clients, generator(seed, "divide"))
    assert len(parts) == clients
    assert min(len(part) for part in parts) > 0
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    again = divide(way, labels, clients, generator(seed, "divide"))
    assert [part.tolist() for part in again] == [part.tolist() for part in parts]


DIVIDE_AGAIN = """
import hashlib
import numpy as np
from fedbench.config import Data
from fedbench.host.data.division import divide, generator
for way in ("iid", "dirichlet", "shards", "size"):
    parts = divide(Data(partition=way).partition, np.arange(500) % 7, 5, generator(3, "d"))
    print(hashlib.sha256(b"|".join(part.tobytes() for part in parts)).hexdigest())
"""


def test_another_process_divides_alike() -> None:
    theirs = subprocess.run(
        [sys.executable, "-c", DIVIDE_AGAIN], capture_output=True, text=True, check=True
    ).stdout.split()
    ways = (Iid(), Dirichlet(), Shards(), BySize())
    ours = [divide(way, np.arange(500) % 7, 5, generator(3, "d")) for way in ways]
    assert theirs == [
        hashlib.sha256(b"|".join(part.tobytes() for part in parts)).hexdigest() for parts in ours
    ]


def spread(parts: list[Indices], labels: Indices) -> float:
    """How far the clients' shares of the classes are from those of all (0: equal)."""
    whole = np.bincount(labels, minlength=10) / len(labels)
    shares = [np.bincount(labels[part], minlength=10) / len(part) for part in parts]
    return float(np.mean([np.abs(share - whole).sum() / 2 for share in shares]))


def test_a_lower_alpha_makes_clients_more_unequal() -> None:
    labels = np.arange(10_000) % 10
    alphas = (0.1, 1.0, 1000.0)
    parts = [divide(Dirichlet(alpha=a), labels, 5, generator(0, "divide")) for a in alphas]
    low, middle, high = (spread(each, labels) for each in parts)
    assert low > 0.5 > middle > 0.1 > high


@pytest.mark.parametrize("alpha", [0.1, 0.5, 5.0])
def test_class_shares_have_the_mean_and_the_variance_of_a_dirichlet(alpha: float) -> None:
    """Over 1,000 draws: the mean is 1/n, the variance (n - 1) / (n^2 (n alpha + 1))."""
    clients, labels = 4, np.arange(2000) % 10
    way = Dirichlet(alpha=alpha, min_samples=1)
    draws = [divide(way, labels, clients, generator(seed, "divide")) for seed in range(100)]
    held = [[np.bincount(labels[part], minlength=10) for part in parts] for parts in draws]
    shares = np.array(held) / 200  # [seed, client, class]
    variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    error_of_the_mean = np.sqrt(variance / 1000)
    assert np.abs(shares.mean(axis=(0, 2)) - 1 / clients).max() < 4 * error_of_the_mean + 0.5 / 200
    assert shares.var(axis=(0, 2)).mean() == pytest.approx(variance, rel=0.1)


@given(st.floats(0.05, 100), st.integers(1, 60), st.integers(1, 6), MANY_LABELS, SEEDS)
def test_dirichlet_holds_min_samples_or_says_so(
    alpha: float, least: int, clients: int, labels: Indices, seed: int
) -> None:
    way = Dirichlet(alpha=alpha, min_samples=least)
    parts: list[Indices] = []
    refusal = ""
    try:
        parts = divide(way, labels, clients, generator(seed, "divide"))
    except DataError as error:
        refusal = error.message
    if refusal:
        assert f"left some client with fewer than {least}, in each of eleven draws" in refusal
    else:
        assert min(len(part) for part in parts) >= least
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


def test_dirichlet_gives_everyone_what_it_must_have_or_says_that_it_cannot() -> None:
    labels = np.arange(1000) % 10
    parts = divide(Dirichlet(alpha=0.3, min_samples=100), labels, 4, generator(0, "divide"))
    assert min(len(part) for part in parts) >= 100
    with pytest.raises(DataError, match="fewer than 251, in each of eleven draws") as caught:
        divide(Dirichlet(min_samples=251), labels, 4, generator(0, "divide"))
    assert caught.value.message.startswith(
        "data.partition: dividing 1000 training images among 4 clients with alpha 0.5 left some"
    )
    assert "set data.partition.min_samples lower" in caught.value.hint


@given(st.integers(1, 5), SEEDS)
def test_a_client_has_at_most_as_many_classes_as_shards(per_client: int, seed: int) -> None:
    """Where shards end with classes: ten classes of 60, each in as many shards as clients."""
    labels = np.arange(600) % 10
    parts = divide(Shards(per_client=per_client), labels, 10, generator(seed, "divide"))
    assert all(len(part) == 60 for part in parts)
    assert max(len(np.unique(labels[part])) for part in parts) <= per_client


@pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning")  # datasets' sort
def test_shards_are_those_of_flower_datasets() -> None:
    labels = np.arange(1200) * 7 % 10
    random = generator(3, "divide")
    order = random.permutation(1200)
    theirs = ShardPartitioner(8, "label", num_shards_per_partition=3, shuffle=False)
    theirs._rng = random
    expected = flower_datasets(theirs, order, labels)
    assert listed(divide(Shards(per_client=3), labels, 8, generator(3, "divide"))) == expected


def test_more_shards_than_images_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"with 2 shards each are 8 shards, but .* only 7"
    ) as caught:
        divide(Shards(), np.arange(7) % 2, 4, generator(0, "divide"))
    assert caught.value.hint.startswith("set data.partition.per_client lower")


@pytest.mark.parametrize(
    ("law", "sizes"),
    [("linear", [100, 200, 300]), ("square", [42, 171, 387]), ("exponential", [54, 146, 400])],
)
def test_sizes_by_a_law(law: str, sizes: list[int]) -> None:
    parts = divide(BySize(law=law), np.arange(600) % 3, 3, generator(0, "divide"))
    assert [len(part) for part in parts] == sizes


def test_a_law_that_leaves_someone_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="by the exponential law some of 20 clients would get none"):
        divide(BySize(law="exponential"), np.arange(600) % 3, 20, generator(0, "divide"))


def test_the_exponential_law_of_very_many_clients_is_refused_without_a_warning() -> None:
    with pytest.raises(DataError, match="some of 1000 clients would get none of 5000"):
        divide(BySize(law="exponential"), np.zeros(5000, np.int64), 1000, generator(0, "divide"))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), SEEDS)
def test_given_sizes_are_kept_and_the_rest_goes_to_nobody(sizes: list[int], seed: int) -> None:
    parts = divide(BySize(sizes=tuple(sizes)), np.arange(300) % 3, len(sizes), generator(seed, "d"))
    given_out = np.concatenate(parts)
    assert [len(part) for part in parts] == sizes
    assert len(np.unique(given_out)) == len(given_out)


@pytest.mark.parametrize(
    ("sizes", "message", "hint"),
    [
        ((5, 5), "data.partition.sizes: 2 sizes for 3 clients", "give one size for each client"),
        (
            (50, 50, 1),
            "data.partition.sizes: they add up to 101, but there are only 100 training images",
            "give smaller sizes",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: tuple[int, ...], message: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        divide(BySize(sizes=sizes), np.arange(100) % 3, 3, generator(0, "divide"))
    assert caught.value.message == message
    assert caught.value.hint.startswith(hint)


@given(LABELS, st.integers(min_value=1, max_value=400), SEEDS)
def test_draw_keeps_the_proportions_of_the_classes(
    labels: Indices, samples: int, seed: int
) -> None:
    drawn = draw(labels, samples, generator(seed, "train"))
    expected = min(samples, len(labels))
    assert len(drawn) == expected
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    exact = np.bincount(labels, minlength=6) * expected / len(labels)
    # Six classes: the others' roundings can push one class past its nearest integer, no further.
    assert np.abs(np.bincount(labels[drawn], minlength=6) - exact).max() < 3


@given(LABELS, SEEDS)
def test_draw_takes_all_when_nothing_is_asked_for(labels: Indices, seed: int) -> None:
    assert draw(labels, None, generator(seed, "train")).tolist() == list(range(len(labels)))


def test_draw_of_balanced_classes_is_balanced_and_depends_on_the_seed() -> None:
    labels = np.repeat(np.arange(10), 50)
    first = draw(labels, 100, generator(0, "train"))
    assert np.bincount(labels[first]).tolist() == [10] * 10
    assert first.tolist() == draw(labels, 100, generator(0, "train")).tolist()
    assert first.tolist() != draw(labels, 100, generator(1, "train")).tolist()
