from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.flower.bundles import pack, unpack


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_what_is_packed_is_unpacked(parts: list[bytes]) -> None:
    assert unpack(b"".join(pack(parts))) == parts


def test_nothing_is_a_bundle_of_nothing() -> None:
    assert unpack(b"") == []


@pytest.mark.parametrize("length", [1, 8, 15, 19])
def test_half_a_bundle_is_none(length: int) -> None:
    with pytest.raises(struct.error):
        unpack(b"".join(pack([b"1234"]))[:length])
