from __future__ import annotations

import tracemalloc
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st

from fedbench.flower.arrays import ArrayError, count_not_finite, read

WEIGHTS = np.arange(250_000, dtype=np.float32)


def claiming(**header: Any) -> Array:
    stream = BytesIO()
    said = {"descr": "<f4", "fortran_order": False, "shape": (2,)} | header
    np.lib.format.write_array_header_1_0(stream, said)
    return Array("float32", (2,), "numpy.ndarray", stream.getvalue() + bytes(8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, ">f4"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3)])
def test_what_flower_writes_is_read(dtype: Any, shape: tuple[int, ...]) -> None:
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)

    came = read(Array(numbers))

    assert came.dtype == numbers.dtype
    assert came.shape == shape
    assert np.array_equal(came, numbers)


def test_reading_takes_no_memory_whatever_the_header_promises() -> None:
    good, bad = Array(WEIGHTS), [claiming(shape=(2**40,)), claiming(shape=(2**33, 2**33, 2**33))]
    tracemalloc.start()

    assert count_not_finite(read(good)) == 0
    for array in bad:
        with pytest.raises(ArrayError, match="header promises"):
            read(array)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < WEIGHTS.nbytes / 4


def test_what_is_read_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        read(Array(WEIGHTS))[0] = 1


@given(st.binary(max_size=200))
def test_any_bytes_are_an_array_or_an_error(data: bytes) -> None:
    for header in (b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', "):
        try:
            read(Array("float32", (2,), "numpy.ndarray", header + data))
        except ArrayError:
            continue


@pytest.mark.parametrize("place", [0, 65_535, 65_536, 249_999])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_each_number_is_looked_at(place: int, value: float) -> None:
    weights = WEIGHTS.copy()
    weights[place] = value

    assert count_not_finite(weights) == 1
