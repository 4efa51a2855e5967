from __future__ import annotations

import io
from itertools import pairwise, permutations

import pytest
from recorded import top_answers
from rich.console import Console

from fedbench.host.palette import PHASES as HUES
from fedbench.host.watch.top.device_table import (
    GAP,
    PHASES,
    SORTS,
    UNKNOWN,
    DeviceTable,
    fit,
    ordered,
    phase,
)
from fedbench.host.watch.top.snapshot import snapshot
from fedbench.host.watch.top.state import DeviceState

DEVICES = (
    DeviceState("a", epoch_seconds=1.0, cpu_use=0.5, memory=10.0, idle_joules=1.0, busy_joules=1.0),
    DeviceState("b", epoch_seconds=3.0, cpu_use=0.1, memory=30.0),
    DeviceState("c"),
    DeviceState("d", epoch_seconds=2.0, cpu_use=0.9, memory=20.0, idle_joules=5.0, busy_joules=0.0),
)


@pytest.fixture
def devices() -> tuple[DeviceState, ...]:
    return snapshot(*top_answers()).devices


def drawn(devices: tuple[DeviceState, ...], width: int) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width, color_system=None).print(DeviceTable(devices))
    return output.getvalue().splitlines()


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("client", "abcd"),
        ("emulated s", "bdac"),
        ("CPU of quota", "dabc"),
        ("memory MiB", "bdac"),
        ("kJ", "dabc"),
    ],
)
def test_the_highest_is_first_and_what_is_not_known_last(sort: str, order: str) -> None:
    assert "".join(device.client for device in ordered(DEVICES, sort)) == order


def test_all_that_can_sort_does_in_the_order_of_the_columns() -> None:
    assert list(SORTS) == ["client", "emulated s", "CPU of quota", "memory MiB", "kJ"]


def test_what_is_not_a_number_sorts_as_what_is_not_known() -> None:
    nan, inf = float("nan"), float("inf")
    uses = zip("abcd", (nan, 1.0, None, inf), strict=True)
    devices = [DeviceState(name, cpu_use=use) for name, use in uses]
    for order in permutations(devices):
        shown = ordered(order, "CPU of quota")
        assert "".join(device.client for device in shown) == "dbac"


@pytest.mark.parametrize("width", [30, 60, 80, 100, 120, 140, 200])
def test_a_row_is_a_line_and_says_who_and_what(
    width: int, devices: tuple[DeviceState, ...]
) -> None:
    rows = drawn(devices, width)
    assert len(rows) == 1 + len(devices)
    if width >= 60:
        for device, row in zip(devices, rows[1:], strict=True):
            assert row.split()[:2] == [device.client, device.phase]


def test_a_wider_terminal_has_no_fewer_columns(devices: tuple[DeviceState, ...]) -> None:
    titles = [{c.title for c in fit(devices, width)[0]} for width in range(20, 200, 5)]
    for narrow, wide in pairwise(titles):
        assert narrow <= wide


@pytest.mark.parametrize("sort", ["", *SORTS])
@pytest.mark.parametrize("width", [20, 60, 80, 100, 140, 200])
def test_columns_have_room_but_for_those_that_always_stay(
    width: int, sort: str, devices: tuple[DeviceState, ...]
) -> None:
    shown, left_out = fit(devices, width, sort)
    titles = {column.title for column in shown}
    assert titles >= {"client", "phase", "epoch", "CPU of quota"} | ({sort} - {""})
    assert titles.isdisjoint(left_out)
    needed = sum(column.width(devices, sort) for column in shown) + GAP * (len(shown) - 1)
    assert needed <= width or all(column.rank == 0 or column.title == sort for column in shown)


def test_what_is_left_out_begins_with_what_comes_next(devices: tuple[DeviceState, ...]) -> None:
    _, left_out = fit(devices, 100)
    assert left_out[0] == "memory MiB"
    assert "W" in left_out
    assert fit(devices, 200)[1] == []


def test_a_phase_has_the_hue_that_the_dashboards_and_the_report_give_it() -> None:
    """By a terminal's names: its purple is magenta, a grey is a bright black."""
    names = {"magenta": "purple", "black": "grey"}
    shown = {name: phase(DeviceState("a", name)).style for name in HUES}
    hues = {name: str(colour).removeprefix("bright_") for name, colour in shown.items()}
    assert {name: names.get(hue, hue) for name, hue in hues.items()} == {
        name: hue.name for name, hue in HUES.items()
    }


def test_a_phase_is_told_without_colours_too() -> None:
    signs = [sign for _, sign in (*PHASES.values(), UNKNOWN)]
    assert len(set(signs)) == len(signs)
