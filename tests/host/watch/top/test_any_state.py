"""Whatever Prometheus has, it is drawn: any state, in a terminal of any size."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pilot import lines as on_screen
from pilot import play
from rich.cells import cell_len
from rich.console import Console
from textual.pilot import Pilot

from fedbench.host.watch.prometheus import Sample, Series
from fedbench.host.watch.top.device_table import PHASES, DeviceTable
from fedbench.host.watch.top.drawing import Board
from fedbench.host.watch.top.screen import TopApp
from fedbench.host.watch.top.snapshot import METRICS, snapshot
from fedbench.host.watch.top.state import Alert, DeviceState, GpuState, RunState, Snapshot, Traffic

NOW = 1_764_000_000.0
FIGURES = st.floats(width=32)  # NaN and infinities among them
MAYBE = st.none() | FIGURES
NAMES = st.sampled_from(["", "a", "b", "legacy-pc", "lap", "n" * 41])
CLIENT_PHASES = st.sampled_from([*PHASES, "-", "", "paused"])
POINTS = st.lists(st.tuples(st.floats(NOW - 300, NOW), CLIENT_PHASES), max_size=20)
RUN_PHASES = st.sampled_from(["running", "waiting", "failed", "finished", "-"])


def figures(kind: type, **others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One with all that may be unknown."""
    unknown = {f.name: MAYBE for f in fields(kind) if f.type == "float | None"}
    return st.builds(kind, **unknown | others)


DEVICES = figures(
    DeviceState,
    client=NAMES,
    phase=CLIENT_PHASES,
    phases=POINTS.map(lambda points: tuple(sorted(points))),
    profile=NAMES,
    sent=figures(Traffic),
    received=figures(Traffic),
    gpu=figures(GpuState),
)
CURVES = st.lists(FIGURES, max_size=40).map(tuple)
RUNS = figures(
    RunState,
    run=NAMES,
    experiment=NAMES,
    profile=NAMES,
    model=NAMES,
    phase=RUN_PHASES,
    round=st.integers(0, 1000),
    rounds=st.integers(0, 1000),
    dilation=FIGURES,
    accuracies=CURVES,
    losses=CURVES,
)
STATES = st.builds(
    Snapshot,
    st.just(NOW),
    st.lists(NAMES, max_size=2).map(tuple),
    st.none() | RUNS,
    st.lists(DEVICES, max_size=4, unique_by=lambda device: device.client).map(tuple),
    st.lists(st.builds(Alert, NAMES, NAMES), max_size=3).map(tuple),
)
KEYS = st.sampled_from(["s", "j", "k", "enter", "escape", "question_mark", "pagedown", "right"])
WIDTHS, HEIGHTS = st.integers(10, 200), st.integers(3, 60)


def widest(what: Board | DeviceTable, width: int) -> int:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    rendered = console.render_lines(what, pad=False)  # as printed: rows are cut where too wide
    texts = ("".join(segment.text for segment in line) for line in rendered)
    return max(map(cell_len, texts), default=0)


@settings(max_examples=40, deadline=None)
@given(STATES, WIDTHS)
def test_any_state_is_printed_and_no_line_is_wider_than_the_terminal(
    state: Snapshot, width: int
) -> None:
    for what in (Board(state), DeviceTable(state.devices)):
        assert widest(what, width) <= width


@settings(max_examples=6, deadline=None)
@given(st.lists(st.tuples(STATES, KEYS, WIDTHS, HEIGHTS), min_size=1, max_size=3))
def test_any_states_are_drawn_one_after_the_other_in_a_terminal_that_changes_its_size(
    story: list[tuple[Snapshot, str, int, int]],
) -> None:
    state, *_ = story[0]

    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        nonlocal state
        for state, key, width, height in story:  # noqa: B007, looked at by the app
            await app.renew()
            await pilot.press(key)
            await pilot.resize_terminal(width, height)
            await pilot.pause()
            assert app.is_running
            assert [cell_len(line) <= width for line in on_screen(app)] == [True] * height

    assert play(lambda: state, scene).return_value is None


SAMPLES = st.builds(
    lambda name, run, client, value: Sample(
        {"__name__": name, "run": run, "client": client, "phase": "running"}, value
    ),
    st.sampled_from(METRICS),
    st.sampled_from(["r", "q"]),
    NAMES,
    FIGURES | st.just(1.0),
)
SERVER_CURVES = st.builds(
    lambda name, values: Series({"__name__": name, "run": "r"}, list(enumerate(values))),
    st.sampled_from(["fedbench_server_accuracy", "fedbench_server_loss"]),
    st.lists(FIGURES, max_size=40),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(SAMPLES, max_size=80), st.lists(SERVER_CURVES, max_size=3), WIDTHS)
def test_any_figures_of_prometheus_are_a_state_that_is_printed(
    facts: list[Sample], curves: list[Series], width: int
) -> None:
    assert widest(Board(snapshot(facts, [], curves)), width) <= width
