"""Damages files as a power cut or a dying disk does: cut off at a byte, or with other bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import strategies as st

from fedbench.errors import FedbenchError

Flips = list[tuple[int, int]]
flips: st.SearchStrategy[Flips] = st.lists(
    st.tuples(st.integers(0, 2**20), st.integers(0, 7)), min_size=1, max_size=4
)
"""Bits to turn: (byte, modulo the file's size; bit)."""


def cuts(path: Path) -> Iterator[bytes]:
    """Cut a file at every byte, and yield what is left of it; it is whole again afterwards."""
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        yield whole[:size]
    path.write_bytes(whole)


def turn(content: bytes, bits: Flips) -> bytes:
    """Return the content with these bits turned."""
    changed = bytearray(content)
    for place, bit in bits:
        changed[place % len(changed)] ^= 1 << bit
    return bytes(changed)


def refused(read: Callable[[], object], *names: str) -> bool:
    """Tell whether it was refused, which takes one line that has one of these names.

    Any other error than ours is a defect.
    """
    refusal = None
    try:
        read()
    except FedbenchError as error:
        refusal = error
    if refusal is None:
        return False
    assert "\n" not in refusal.message
    assert any(name in refusal.message for name in names), refusal.message
    assert refusal.hint
    return True
