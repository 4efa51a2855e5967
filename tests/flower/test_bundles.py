from __future__ import annotations

import struct
import threading
import time
import tracemalloc
from http.client import HTTPConnection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.flower.bundles import Connection, pack, unpack


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_what_is_packed_is_unpacked(parts: list[bytes]) -> None:
    assert unpack(b"".join(pack(parts))) == parts


def test_nothing_is_a_bundle_of_nothing() -> None:
    assert unpack(b"") == []


@pytest.mark.parametrize("length", [1, 8, 15, 19])
def test_half_a_bundle_is_none(length: int) -> None:
    with pytest.raises(struct.error):
        unpack(b"".join(pack([b"1234"]))[:length])


@pytest.mark.parametrize("count", [3, 2**40, 2**63, 2**64 - 1])
def test_a_table_that_claims_more_parts_than_there_are_is_none(count: int) -> None:
    tracemalloc.start()
    with pytest.raises(struct.error):
        unpack(struct.pack("<QQQ", count, 0, 0))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 10_000


@pytest.mark.parametrize("lengths", [(2**63,), (4, 2**64 - 1), (5,), (3,), (2, 1)])
def test_lengths_that_do_not_add_up_are_no_bundle(lengths: tuple[int, ...]) -> None:
    with pytest.raises(struct.error):
        unpack(struct.pack(f"<{1 + len(lengths)}Q", len(lengths), *lengths) + b"1234")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_bundle_or_an_error(body: bytes) -> None:
    try:
        parts = unpack(body)
    except struct.error:
        return
    assert body in (b"", b"".join(pack(parts)))


def test_who_is_to_end_asks_a_server_that_hangs_up_no_more() -> None:
    stop = threading.Event()
    asked: list[float] = []

    def refuse() -> HTTPConnection:
        asked.append(time.monotonic())
        if len(asked) == 3:
            stop.set()
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        Connection(refuse, 60, stop).post("/", [b""], dict)
    assert len(asked) == 3
