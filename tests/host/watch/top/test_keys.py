from __future__ import annotations

import pytest

from fedbench.host.watch.top.keys import named


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"q", ["q"]),
        (b"sj?", ["s", "j", "?"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOA\x1bOB", ["up", "down"]),  # in application mode
        (b"\n\r", ["enter", "enter"]),
        (b"\x1b", ["escape"]),
        (b"\x1a", ["suspend"]),
        (b"\x1bq", ["escape", "q"]),
        (b"\x1b[1;5Aq", ["", "q"]),  # Ctrl and an arrow are no key of ours
        ("é".encode(), ["", ""]),
    ],
)
def test_bytes_of_a_terminal_become_keys(typed: bytes, keys: list[str]) -> None:
    assert named(typed) == keys
