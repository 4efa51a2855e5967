"""The full-screen view, its keys pressed by Textual's pilot."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace

import golden
import pytest
from pilot import lines, play, seen
from recorded import FILE, top_answers
from textual.pilot import Pilot

from fedbench.errors import HostError
from fedbench.host.watch.top.screen import TopApp
from fedbench.host.watch.top.snapshot import snapshot
from fedbench.host.watch.top.state import Alert, DeviceState, Snapshot

RUN = "20261125-124422-digits"


@pytest.fixture
def state() -> Snapshot:
    return snapshot(*top_answers())


def many(count: int) -> Snapshot:
    devices = tuple(DeviceState(f"c{n:02}", phase="waiting") for n in range(count))
    return Snapshot(100.0, (), None, devices)


def order(screen: list[str]) -> list[str]:
    """The clients of the table, from top to bottom."""
    return [line.split()[0] for line in screen if "3/3  " in line]


def opened(screen: list[str]) -> str:
    """The client of which details are open."""
    return next((line.split()[1] for line in screen if re.match(r" client {3,}\S", line)), "")


@pytest.mark.parametrize("size", ["80x24", "120x40", "40x10"])
def test_the_screen_is_as_it_was(size: str, state: Snapshot) -> None:
    width, height = map(int, size.split("x"))
    text = "".join(f"{line}\n" for line in seen(state, width=width, height=height))
    golden.check(FILE.with_name(f"screen-{size}.txt"), text)


def test_keys_sort_select_and_open(state: Snapshot) -> None:
    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        assert order(lines(app)) == ["laptop", "legacy-pc", "workstation"]
        await pilot.press("s")
        assert order(lines(app)) == ["legacy-pc", "workstation", "laptop"]
        await pilot.press("down", "enter")  # from the first by name, which is the last by now
        assert opened(lines(app)) == "laptop"
        await pilot.press("k")
        assert opened(lines(app)) == "workstation"
        assert any(re.match(r" energy +\d+\.\d+ kJ", line) for line in lines(app))
        await pilot.press("escape")
        assert len(order(lines(app))) == 3
        await pilot.press("enter", "q")
        assert len(order(lines(app))) == 3
        assert app.is_running
        await pilot.press("q")

    app = play(lambda: state, scene)
    assert (app.return_value, app.return_code) == (None, 0)


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
def test_the_last_key(key: str, state: Snapshot) -> None:
    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        await pilot.press("x", "escape")  # which do nothing
        assert app.is_running
        await pilot.press(key)
        assert not app.is_running

    assert play(lambda: state, scene).return_value is None


def test_who_is_selected(state: Snapshot) -> None:
    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        for keys, client in (
            ("", "laptop"),
            ("k", "laptop"),
            ("j", "legacy-pc"),
            ("jk", "legacy-pc"),
            ("s", "legacy-pc"),  # who was selected still is, first of all by seconds
            ("j", "workstation"),
            ("jj", "laptop"),
        ):
            await pilot.press(*keys, "enter")
            assert opened(lines(app)) == client
            await pilot.press("escape")

    play(lambda: state, scene)


def test_each_s_sorts_by_the_next_column_and_marks_it(state: Snapshot) -> None:
    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        for mark in ("client ▲", "emulated s ▼", "CPU of quota ▼", "memory MiB ▼", "kJ ▼") * 2:
            assert sum(line.count(mark) for line in lines(app)) == 1
            assert len(re.findall("[▲▼]", lines(app)[5])) == 1
            await pilot.press("s")

    play(lambda: state, scene, (80, 24))  # so narrow that memory would be left out


def test_who_is_open_stays_open_when_another_one_is_the_first(state: Snapshot) -> None:
    slower = replace(state.devices[0], epoch_seconds=99.0)
    later = replace(state, devices=(slower, *state.devices[1:]))
    assert opened(seen(state, "s", "j", "enter", "k", "k", after=[later])) == "legacy-pc"


def test_who_has_gone_is_selected_no_more(state: Snapshot) -> None:
    left = replace(state, devices=state.devices[:2])
    assert opened(seen(state, "j", "j", "enter", after=[left])) == "laptop"
    nobody = seen(state, "enter", after=[replace(state, devices=())])
    assert opened(nobody) == ""
    assert any(line.startswith(" client ▲") for line in nobody)


def test_without_devices_there_is_nothing_to_open_or_select() -> None:
    assert opened(seen(many(0), "j", "enter", "s")) == ""


def test_details_take_the_place_of_the_table(state: Snapshot) -> None:
    text = "\n".join(seen(state, "j", "enter"))
    assert "\n client       legacy-pc" in text
    assert "CPU of quota" not in text
    assert "workstation" not in text.partition("\n client")[2]


def test_help_opens_and_closes(state: Snapshot) -> None:
    what = " s sort   ↑ ↓ or k j select   Enter details   Esc or q back   q quit   ← wider"

    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        for key in ("question_mark", "escape"):
            await pilot.press("question_mark")
            assert lines(app)[-1].startswith(what)
            await pilot.press(key)
            assert lines(app)[-1].startswith(" ? keys   ← wider terminal: ")

    play(lambda: state, scene)


def table(screen: list[str]) -> list[str]:
    """The clients of the rows that are seen."""
    return [line.split()[0] for line in screen if " waiting  " in line and line[1] == "c"]


@pytest.mark.parametrize(
    ("keys", "client"),
    [([], "c00"), (["ctrl+end", "k"], "c28"), (["ctrl+end"], "c29"), (["pagedown", "j"], "c18")],
)
def test_as_many_devices_as_there_are_lines_for_and_the_selected_one_among_them(
    keys: list[str], client: str
) -> None:
    screen = seen(many(30), *keys, after=[many(30)])
    rows = table(screen)
    assert client in rows
    assert len(rows) >= 15
    assert rows == [f"c{n:02}" for n in range(int(rows[0][1:]), int(rows[-1][1:]) + 1)]
    legend = next(n for n, line in enumerate(screen) if line.startswith(" 4 min: "))
    assert screen[legend - 1].startswith(f" {client}")  # whose timeline is the one with room


def test_rows_stay_where_they_are_when_a_newer_state_comes() -> None:
    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        await pilot.press("ctrl+end", "k", "k", "k")
        before = lines(app)
        assert table(before)[0] != "c00"
        await app.renew()
        await pilot.pause()
        assert lines(app) == before

    play(lambda: many(30), scene)


def test_a_terminal_that_changes_its_size(state: Snapshot) -> None:
    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        wide = lines(app)
        await pilot.resize_terminal(60, 16)
        await pilot.pause()
        narrow = lines(app)
        assert len(narrow) == 16
        assert any("accuracy" in line and "client" in line for line in wide)
        assert not any("accuracy" in line and "client" in line for line in narrow)
        await pilot.resize_terminal(120, 24)
        await pilot.pause()
        assert lines(app) == wide

    play(lambda: state, scene)


def test_alerts_stand_above_the_keys(state: Snapshot) -> None:
    alerts = (Alert("Full"), Alert("Stuck", "a"))
    assert seen(replace(state, alerts=alerts))[-2] == " alerts: Full, Stuck (a)"


def test_it_goes_on_while_prometheus_is_away(state: Snapshot) -> None:
    answers: list[Callable[[], Snapshot]] = []

    def away() -> Snapshot:
        raise HostError("Prometheus does not answer")

    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        answers.append(away)
        await app.renew()
        await pilot.press("j", "enter")
        note, *rest = lines(app)
        assert re.fullmatch(r" as of \d\d:\d\d:\d\d: Prometheus does not answer", note)
        assert rest[0].startswith(f" {RUN}")
        assert opened(rest) == "legacy-pc"
        answers.clear()
        await app.renew()
        await pilot.pause()
        assert lines(app)[0].startswith(f" {RUN}")
        assert opened(lines(app)) == "legacy-pc"

    app = play(lambda: answers[0]() if answers else state, scene)
    assert app.return_value is None


def test_another_run_takes_the_place_of_one_that_nobody_asked_for(state: Snapshot) -> None:
    assert state.run is not None
    other = replace(state, run=replace(state.run, run="20261126-other"))
    assert seen(state, after=[other])[0].startswith(" 20261126-other  digits")


def test_a_defect_ends_it_and_is_its_result(state: Snapshot) -> None:
    answers = [state]

    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        app.call_later(app.renew)
        while app.is_running:
            await asyncio.sleep(0.01)

    result = play(answers.pop, scene).return_value
    assert isinstance(result, IndexError)
