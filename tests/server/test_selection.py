from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fedbench.server.selection import select

names = st.lists(st.text("abcdefgh-0123456789", min_size=1), unique=True)
fractions = st.floats(0, 1, exclude_min=True)


@given(names, fractions, st.integers(0), st.integers(1))
def test_max_of_c_times_k_and_one_clients_are_chosen(
    clients: list[str], fraction: float, seed: int, server_round: int
) -> None:
    chosen = select(clients, fraction, seed, server_round)

    assert len(chosen) == (max(int(fraction * len(clients)), 1) if clients else 0)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(clients)


@given(names, fractions, st.integers(0), st.integers(1), st.randoms())
def test_the_order_in_which_clients_came_does_not_matter(
    clients: list[str], fraction: float, seed: int, server_round: int, random: Random
) -> None:
    shuffled = list(clients)
    random.shuffle(shuffled)

    assert select(shuffled, fraction, seed, server_round) == select(
        clients, fraction, seed, server_round
    )


def test_everybody_takes_part_when_the_fraction_is_one() -> None:
    assert select({"c": 1, "a": 2, "b": 3}, 1.0, 7, 1) == ["a", "b", "c"]


def test_rounds_and_seeds_choose_differently() -> None:
    clients = [f"client-{number}" for number in range(20)]
    by_round = {tuple(select(clients, 0.2, 0, server_round)) for server_round in range(1, 11)}
    by_seed = {tuple(select(clients, 0.2, seed, 1)) for seed in range(10)}

    assert len(by_round) == len(by_seed) == 10


def test_in_the_long_run_everybody_is_chosen_as_often() -> None:
    clients = [f"client-{number}" for number in range(10)]
    counts = dict.fromkeys(clients, 0)
    for server_round in range(1, 1001):
        for name in select(clients, 0.3, 0, server_round):
            counts[name] += 1

    # Binomial, n = 1000, p = 0.3: the standard deviation is 14.5.
    assert all(230 < count < 370 for count in counts.values())


def test_a_seed_chooses_the_same_on_every_machine_and_version() -> None:
    clients = [f"client-{number}" for number in range(10)]

    assert select(clients, 0.3, 42, 3) == ["client-3", "client-4", "client-8"]
