from __future__ import annotations

import io
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from recorded import FILE, top_answers
from rich.console import Console

from fedbench.host.top_drawing import Board, Devices, sparkline
from fedbench.host.top_figures import Device, Snapshot, snapshot


def drawn(what: Board | Devices, width: int) -> str:
    output = io.StringIO()
    Console(file=output, width=width, color_system=None).print(what)
    return "".join(line.rstrip() + "\n" for line in output.getvalue().splitlines())


@pytest.fixture
def state() -> Snapshot:
    return snapshot(*top_answers())


@pytest.mark.parametrize("width", [80, 140])
def test_the_view_is_as_it_was(width: int, state: Snapshot) -> None:
    golden = Path(FILE).with_name(f"{width}.txt")
    text = drawn(Board(state), width)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [30, 60, 80, 100, 120, 140, 200])
def test_a_row_is_a_line_and_says_who_and_what(width: int, state: Snapshot) -> None:
    rows = drawn(Devices(state), width).splitlines()
    assert len(rows) == 1 + len(state.devices)
    if width >= 60:
        for device, row in zip(state.devices, rows[1:], strict=True):
            assert row.split()[:2] == [device.client, device.phase]


def test_a_wider_terminal_has_no_fewer_columns(state: Snapshot) -> None:
    headers = [set(drawn(Devices(state), w).splitlines()[0].split()) for w in range(60, 200, 10)]
    for narrow, wide in pairwise(headers):
        assert narrow <= wide


def nobody(**figures: object) -> Snapshot:
    return replace(Snapshot(100.0, (), None, (), ()), **figures)  # type: ignore[arg-type]


def test_a_federation_without_a_run() -> None:
    text = drawn(Board(nobody(devices=(Device("a", "waiting"),))), 80)
    assert text.startswith("no run yet\n")
    assert "a       waiting" in text


def test_who_holds_the_round_back_and_why(state: Snapshot) -> None:
    slow = Device("slow", "training", epoch=2, epochs=3, cpu_use=0.98, throttled=0.5)
    fast = Device("fast", "waiting", ((90.0, "training"), (92.0, "waiting")))
    text = drawn(Board(replace(state, time=100.0, devices=(fast, slow))), 140)
    assert (
        "slow holds the round back: training epoch 2/3, 98% of its CPU quota used, "
        "throttled in 50% of periods; waiting: fast 8 s\n"
    ) in text


def test_a_slow_link_is_told(state: Snapshot) -> None:
    slow = Device("slow", "sending", sent=125e3)
    fast = Device("fast", "waiting")
    text = drawn(Board(replace(state, devices=(fast, slow))), 140)
    assert "sending, its link carries 125 kB/s; waiting: fast over 240 s\n" in text


def test_the_timeline_ends_where_a_device_left() -> None:
    left = Device("a", "gone", tuple((float(at), "training") for at in range(2, 121, 2)))
    text = drawn(Board(nobody(time=240.0, devices=(left,))), 122)
    assert f"\na {'█' * 60}\n" in text


def test_alerts_and_notes_are_told() -> None:
    text = drawn(Board(nobody(alerts=("Stuck (a)", "Full")), "as of 12:00:00: away"), 80)
    assert text.startswith("as of 12:00:00: away\n")
    assert text.endswith("alerts: Stuck (a), Full\n")


@pytest.mark.parametrize(
    ("values", "blocks"), [([1.0], "▁"), ([2, 2], "▁▁"), ([0, 3.5, 7], "▁▅█"), ([7, 0], "█▁")]
)
def test_a_sparkline(values: list[float], blocks: str) -> None:
    assert sparkline(values) == blocks


def test_a_long_sparkline_is_of_the_last_values() -> None:
    assert sparkline([9.0, *range(30)])[:2] == "▁▁"
