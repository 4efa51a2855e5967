"""An array that somebody else sent, read without belief in what it says of itself.

Flower's `Array.numpy()` allocates what a header promises, and copies.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array
from numpy.lib import format as npy
from numpy.typing import NDArray

_SERIALISED = "numpy.ndarray"
_LARGEST_HEADER = 16_384  # bytes; numpy reads no more than 10,000 of them
_CHUNK = 65_536  # numbers
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class ArrayError(ValueError):
    """An array's bytes are not what they should be; says which."""


def read(array: Array) -> NDArray[Any]:
    """Return the array over the bytes that came: nothing is copied, and nothing can be written.

    Raises:
        ArrayError: it is pickled or no npy array, or its header does not fit its bytes.
    """
    if array.stype != _SERIALISED:
        raise ArrayError(f"its array is serialised as {array.stype!r}, expected {_SERIALISED!r}")
    start, shape, dtype = _header(array.data)
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size != len(array.data) - start:
        raise ArrayError(
            f"its array's header promises {size} bytes, and {len(array.data) - start} came"
        )
    return np.frombuffer(array.data, dtype, offset=start).reshape(shape)


def _header(data: bytes) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """Return where the numbers begin, their shape and their type."""
    stream = BytesIO(data[:_LARGEST_HEADER])
    try:
        shape, fortran, dtype = _READERS[npy.read_magic(stream)](stream)
    except Exception as error:  # numpy parses it as Python: it may raise whatever Python does
        raise ArrayError(f"its array is no npy: {error}") from None
    if dtype.hasobject or fortran or any(length < 0 for length in shape):
        order = "column by column" if fortran else "row by row"
        raise ArrayError(
            f"its array is {dtype} {list(shape)}, {order}; expected numbers, row by row"
        )
    return stream.tell(), shape, dtype


def count_not_finite(values: NDArray[np.floating]) -> int:
    """Return how many of the numbers [P] are NaN or infinite; memory is that of a chunk."""
    count = 0
    for start in range(0, values.size, _CHUNK):
        finite = np.isfinite(values[start : start + _CHUNK])
        if not finite.all():  # several times as fast as to count
            count += finite.size - int(np.count_nonzero(finite))
    return count
