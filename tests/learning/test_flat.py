from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from fedbench.learning import flat, models


def small(channels: int = 3, features: int = 4) -> nn.Module:
    convolution = nn.Conv2d(channels, features, 3)
    model = nn.Sequential(convolution, nn.BatchNorm2d(features))
    return model.to(memory_format=torch.channels_last)


def test_order_is_the_state_dicts_and_rows_are_logical() -> None:
    model = small()
    expected = [
        model[0].weight.detach().numpy().ravel(),  # NumPy's C order, whatever lies in memory
        model[0].bias.detach().numpy(),
        np.ones(4),
        np.zeros(4),
        np.zeros(4),  # running mean
        np.ones(4),  # running variance
    ]

    array = flat.to_flat(model)

    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.concatenate(expected))


def test_mobilenet_v2_with_its_running_statistics() -> None:
    model = models.build("mobilenet_v2")

    # 2,236,682 parameters, and mean and variance of 17,056 normalised channels.
    assert flat.to_flat(model).shape == (2_236_682 + 2 * 17_056,)


def test_the_running_statistics_are_where_it_says() -> None:
    model = nn.Sequential(small(), small(4, 2), nn.Linear(2, 2))
    for number, module in enumerate(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        torch.arange(module.num_features, out=module.running_mean).add_(10 * number)
        torch.arange(module.num_features, out=module.running_var).add_(10 * number + 100)

    array, running = flat.to_flat(model), flat.running(model)

    assert array[running.means].tolist() == [0, 1, 2, 3, 10, 11]
    assert array[running.variances].tolist() == [100, 101, 102, 103, 110, 111]


def test_a_model_without_normalisation_has_no_statistics() -> None:
    running = flat.running(nn.Linear(2, 2))

    assert len(running.means) == len(running.variances) == 0


@given(channels=st.integers(1, 5), features=st.integers(1, 9), data=st.data())
def test_round_trip(channels: int, features: int, data: st.DataObject) -> None:
    model = small(channels, features)
    size = len(flat.to_flat(model))
    numbers = st.floats(width=32, allow_nan=False)
    few = data.draw(st.lists(numbers, min_size=1, max_size=size))
    array = np.resize(np.array(few, np.float32), size)

    flat.from_flat(model, array)

    np.testing.assert_array_equal(flat.to_flat(model), array)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_array_is_a_copy() -> None:
    model = small()
    array = flat.to_flat(model)

    array += 1

    assert not np.array_equal(flat.to_flat(model), array)


def test_read_only_array() -> None:
    model = small()
    array = flat.to_flat(model) + 1
    array.setflags(write=False)

    flat.from_flat(model, array)

    np.testing.assert_array_equal(flat.to_flat(model), array)


def test_integer_buffers_stay_out() -> None:
    model = small()
    model[1].num_batches_tracked.fill_(7)

    flat.from_flat(model, flat.to_flat(small()))

    assert model[1].num_batches_tracked == 7
    assert model[1].num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize(
    ("array", "seen"),
    [
        (np.zeros(127, np.float32), r"float32 \(127,\)"),
        (np.zeros(128, np.float64), r"float64 \(128,\)"),
        (np.zeros((1, 128), np.float32), r"float32 \(1, 128\)"),
    ],
)
def test_wrong_array(array: np.ndarray, seen: str) -> None:
    model = small()

    with pytest.raises(
        ValueError, match=rf"expected a float32 array of shape \(128,\), found {seen}"
    ):
        flat.from_flat(model, array)


def test_to_state_has_the_models_names_and_shares_nothing() -> None:
    model = small()
    array = flat.to_flat(model)

    state = flat.to_state(array, model)
    array[:] = 9

    assert list(state) == [n for n in model.state_dict() if n != "1.num_batches_tracked"]
    assert all(torch.equal(state[name], model.state_dict()[name]) for name in state)


def test_file_loads_without_fedbench(tmp_path: Path) -> None:
    model, other = small(), small()

    (tmp_path / "model.safetensors").write_bytes(flat.dump(flat.to_flat(model), model))
    result = other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)

    assert result.unexpected_keys == []
    np.testing.assert_array_equal(flat.to_flat(other), flat.to_flat(model))


def test_load_reads_what_save_wrote(tmp_path: Path) -> None:
    model = small()
    array = flat.to_flat(model)

    (tmp_path / "model.safetensors").write_bytes(flat.dump(array, model))

    np.testing.assert_array_equal(flat.load(tmp_path / "model.safetensors", small()), array)


def test_load_takes_a_whole_state_dict_in_another_precision(tmp_path: Path) -> None:
    model = small()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    state["1.running_var"] = state["1.running_var"].double()
    save_file(state, tmp_path / "whole.safetensors")

    array = flat.load(tmp_path / "whole.safetensors", small())

    np.testing.assert_array_equal(array, flat.to_flat(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.bias": None}, r"0\.bias is missing"),
        ({"head.weight": torch.zeros(1)}, r"head\.weight is not in the model"),
        ({"0.bias": torch.zeros(5)}, r"0\.bias has shape \[5\], expected \[4\]"),
    ],
)
def test_another_models_file(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    model = small()
    state = {**flat.to_state(flat.to_flat(model), model), **change}
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, path)

    with pytest.raises(ValueError, match=rf"weights\.safetensors: {message}"):
        flat.load(path, model)


def test_no_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text("not tensors, but long enough to hold a header's length")

    with pytest.raises(ValueError, match=r"weights\.safetensors: cannot be read as safetensors"):
        flat.load(path, small())


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        flat.load(tmp_path / "absent.safetensors", small())
