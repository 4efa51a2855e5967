from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedbench.learning import flat
from fedbench.learning.flat import Running
from fedbench.server.averaging import Average, Momentum

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
