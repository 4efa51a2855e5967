from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from fedbench.host.watch.top.device_table import TITLES
from fedbench.host.watch.top.state import DeviceState
from fedbench.host.watch.top.view import SORTS, View

DEVICES = (
    DeviceState("a", epoch_seconds=1.0, cpu_use=0.5, memory=10.0, idle_joules=1.0, busy_joules=1.0),
    DeviceState("b", epoch_seconds=3.0, cpu_use=0.1, memory=30.0),
    DeviceState("c"),
    DeviceState("d", epoch_seconds=2.0, cpu_use=0.9, memory=20.0, idle_joules=5.0, busy_joules=0.0),
)


def after(*keys: str, view: View | None = None) -> View:
    view = view or View()
    for key in keys:
        changed = view.after(key, DEVICES)
        assert changed is not None
        view = changed
    return view


@pytest.mark.parametrize(
    ("times", "order"),
    [(0, "abcd"), (1, "bdac"), (2, "dabc"), (3, "bdac"), (4, "dabc"), (5, "abcd")],
)
def test_each_s_sorts_by_another_figure_highest_first(times: int, order: str) -> None:
    assert "".join(d.client for d in after(*["s"] * times).devices(DEVICES)) == order


def test_what_is_not_a_number_sorts_as_what_is_not_known() -> None:
    nan, inf = float("nan"), float("inf")
    devices = [
        DeviceState(name, cpu_use=use) for name, use in zip("abcd", (nan, 1.0, None, inf), strict=True)
    ]
    for order in permutations(devices):
        shown = View(sort="CPU of quota").devices(order)
        assert "".join(device.client for device in shown) == "dbac"


def test_what_sorts_is_a_column() -> None:
    assert set(SORTS) <= set(TITLES)


@pytest.mark.parametrize(
    ("keys", "client"),
    [
        ("", "a"),
        ("j", "b"),
        ("jjk", "b"),
        ("k", "a"),
        ("jjjjjj", "d"),
        ("sj", "d"),  # by seconds: b, d, a, c
        ("jsj", "d"),  # who was selected still is, first of all
    ],
)
def test_who_is_selected(keys: str, client: str) -> None:
    chosen = after(*keys).selected(DEVICES)
    assert chosen is not None
    assert chosen.client == client


def test_arrows_select_too() -> None:
    assert after("down", "down", "up").client == "b"


def test_who_has_gone_is_selected_no_more() -> None:
    assert View(client="d").selected(DEVICES[:2]) == DEVICES[0]
    assert View(client="d").selected([]) is None


@pytest.mark.parametrize("back", ["q", "escape"])
def test_details_open_and_close(back: str) -> None:
    opened = after("j", "enter")
    assert (opened.client, opened.detail) == ("b", True)
    assert after("j", view=opened) == View(client="c", detail=True)
    assert after(back, view=opened) == View(client="b")


def test_who_is_open_stays_open_when_another_one_is_the_first() -> None:
    opened = after("s", "enter")  # by seconds: b
    slower = replace(DEVICES[0], epoch_seconds=9.0)
    chosen = opened.selected([slower, *DEVICES[1:]])
    assert chosen is not None
    assert chosen.client == "b"


def test_q_ends_where_what_was_open_has_gone_with_all_others() -> None:
    assert after("enter").after("q", []) is None


def test_without_devices_there_is_nothing_to_open_or_select() -> None:
    assert View().after("enter", []) == View().after("j", []) == View()


def test_help_opens_and_closes() -> None:
    assert after("?").help
    assert after("?", "?") == after("?", "escape") == View()


def test_q_is_the_last_key_and_others_do_nothing() -> None:
    assert View().after("q", DEVICES) is None
    assert after("x", "", "escape") == View()
