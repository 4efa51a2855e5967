from __future__ import annotations

from fractions import Fraction
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from fedbench.learning import flat
from fedbench.learning.flat import Running
from fedbench.server.averaging import Average, ExactSum, Momentum

NOTHING = Running(np.empty(0, np.int64), np.empty(0, np.int64))
RUNNING = Running(means=np.array([1]), variances=np.array([2]))


def array(*values: float) -> flat.Flat:
    return np.array(values, np.float32)


def pooled(*models: tuple[flat.Flat, int]) -> flat.Flat:
    average = Average(RUNNING)
    for weights, images in models:
        average.add(weights, images)
    result = average.result()
    assert result is not None
    assert result.dtype == np.float32
    return result


any_number = st.floats(width=32, allow_nan=False, allow_infinity=False)
replies = st.lists(
    st.tuples(st.lists(any_number, min_size=3, max_size=3), st.integers(1, 2**29 - 1)),
    min_size=1,
    max_size=12,
)


def mean(models: list[tuple[list[float], int]], pooled: Running | None = None) -> flat.Flat:
    average = Average(pooled)
    for weights, images in models:
        average.add(array(*weights), images)
    result = average.result()
    assert result is not None
    return result


@given(replies, st.randoms(), st.sampled_from([None, RUNNING]))
@example(
    [([1.0, 2**-100, -0.0], 3), ([2**60, -(2**-149), 0.0], 7), ([-(2**60), 0, 0], 7)],
    Random(0),
    None,
)
def test_any_order_of_the_replies_gives_the_same_bits(
    models: list[tuple[list[float], int]], random: Random, pooled: Running | None
) -> None:
    shuffled = list(models)
    random.shuffle(shuffled)

    assert mean(shuffled, pooled).tobytes() == mean(models, pooled).tobytes()


@given(replies)
def test_the_mean_is_the_exact_one_rounded(models: list[tuple[list[float], int]]) -> None:
    """To the last bit or the one beside it: to double precision first, then to single."""
    result = mean(models)

    total = sum(images for _, images in models)
    for place, value in enumerate(result):
        exact = sum(Fraction(float(np.float32(w[place]))) * images for w, images in models)
        # Of the largest number, numpy's spacing is beyond it.
        beside = np.spacing(min(abs(value), np.float32(2**127)))
        assert abs(Fraction(float(value)) - exact / total) <= Fraction(float(beside))


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, max_value=1e300, min_value=-1e300)),
    st.randoms(),
)
def test_a_sum_is_the_double_next_to_the_exact_one(values: list[float], random: Random) -> None:
    total = ExactSum()
    random.shuffle(values)
    for value in values:
        total.add(np.array([value]))

    rounded = total.rounded()

    if rounded is None:
        assert values == []
    else:
        assert rounded[0] == float(sum(map(Fraction, values)))


@pytest.mark.parametrize("size", [32_767, 32_768, 32_769, 70_000])
def test_long_models_are_summed_piece_by_piece(size: int) -> None:
    """Every second sum needs what rounding left over, and some need what it left of that."""
    small, tiny = np.full(size, 2.0**-60), np.zeros(size)
    small[::2], tiny[[0, -1]] = 0, 2.0**-140
    total = ExactSum()
    for values in (np.ones(size), small, tiny, -np.ones(size), -small):
        total.add(values.astype(np.float32), 3)

    assert np.array_equal(total.rounded(), 3 * tiny)


def test_trained_models_in_another_order_are_the_same_mean() -> None:
    random = np.random.default_rng(0)
    start = random.normal(0, 0.05, 100_000)
    models = [(start + random.normal(0, 0.01, start.size)).astype(np.float32) for _ in range(3)]

    def averaged(order: tuple[int, ...]) -> bytes:
        average = Average()
        for number in order:
            average.add(models[number], (600, 1203, 50_000)[number])
        result = average.result()
        assert result is not None
        return result.tobytes()

    assert averaged((0, 1, 2)) == averaged((2, 0, 1)) == averaged((1, 2, 0))


@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), min_size=1),
)
def test_a_pooled_variance_is_that_of_all_images(clients: list[list[float]]) -> None:
    models = [(array(0, np.mean(own), np.var(own)), len(own)) for own in clients]

    result = pooled(*models)

    together = np.concatenate(clients)
    np.testing.assert_allclose(result[1], together.mean(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(result[2], together.var(), rtol=1e-3, atol=0.5)
    assert result[2] >= 0


def test_clients_that_agree_keep_their_variance() -> None:
    """Where the mean is large, single precision would lose the variance."""
    model = array(7, 1000, 0.01)

    assert np.array_equal(pooled((model, 3), (model, 4), (model, 1)), model)


def test_all_but_the_variances_is_the_plain_mean() -> None:
    plain = Average()
    for weights, images in (first := (array(1, 2, 3), 3)), (second := (array(4, 8, 1), 1)):
        plain.add(weights, images)

    expected = plain.result()
    result = pooled(first, second)

    assert expected is not None
    assert np.array_equal(result[:2], expected[:2])
    assert expected[2] == 2.5
    assert result[2] == 2.5 + 6.75  # means of 2, 2, 2 and 8


def test_without_momentum_the_next_model_is_the_mean() -> None:
    momentum = Momentum(0.5, NOTHING)

    assert momentum.step(array(4, 0), array(1, 2)).tolist() == [1, 2]


def test_momentum_goes_on_where_the_models_went() -> None:
    momentum = Momentum(0.5, NOTHING)
    momentum.step(array(4, 0), array(2, 1))

    stepped = momentum.step(array(2, 1), array(1, 1))

    assert stepped.tolist() == [2 - (0.5 * 2 + 1), 1 - (0.5 * -1 + 0)]


def test_running_statistics_have_no_momentum() -> None:
    momentum = Momentum(0.9, RUNNING)
    momentum.step(array(4, 4, 4), array(2, 2, 2))

    assert momentum.step(array(2, 2, 2), array(1, 1, 1)).tolist()[1:] == [1, 1]


def test_a_run_that_goes_on_keeps_its_momentum() -> None:
    whole = Momentum(0.5, NOTHING)
    whole.step(array(4), array(2))
    resumed = Momentum(0.5, NOTHING, whole.velocity)

    assert resumed.step(array(2), array(1)) == whole.step(array(2), array(1))


def test_pooled_statistics_normalise_the_images_of_all_clients() -> None:
    """Two clients of a layer without weights: in evaluation, all their inputs have variance 1."""
    inputs = torch.randn(2, 64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    inputs[1] += 5
    layer = nn.BatchNorm2d(3, momentum=1.0)
    average = Average(flat.running(layer))
    for own in inputs:
        layer.train()(own)
        average.add(flat.to_flat(layer), len(own))

    result = average.result()
    assert result is not None
    flat.from_flat(layer, result)
    outputs = layer.eval()(inputs.flatten(0, 1))

    torch.testing.assert_close(outputs.var((0, 2, 3)), torch.ones(3), rtol=0.01, atol=0)
