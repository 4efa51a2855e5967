from __future__ import annotations

import io
import re
from dataclasses import replace

import golden
import pytest
from recorded import FILE, top_answers
from rich.console import Console

from fedbench.host.watch.top.drawing import Board, sparkline
from fedbench.host.watch.top.snapshot import RULES, snapshot
from fedbench.host.watch.top.state import Alert, DeviceState, Snapshot, Traffic


def drawn(what: Board, width: int) -> str:
    output = io.StringIO()
    Console(file=output, width=width, color_system=None).print(what)
    return "".join(line.rstrip() + "\n" for line in output.getvalue().splitlines())


@pytest.fixture
def state() -> Snapshot:
    return snapshot(*top_answers())


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_view_is_as_it_was(width: int, state: Snapshot) -> None:
    text = drawn(Board(state), width)
    golden.check(FILE.with_name(f"{width}.txt"), text)
    assert max(map(len, text.splitlines())) <= width


def nobody(**figures: object) -> Snapshot:
    return replace(Snapshot(100.0, (), None, (), ()), **figures)  # type: ignore[arg-type]


def test_a_federation_without_a_run() -> None:
    text = drawn(Board(nobody(devices=(DeviceState("a", "waiting"),))), 80)
    assert text.startswith("no run yet\n")
    assert "a       waiting" in text


def test_who_holds_the_round_back_and_why(state: Snapshot) -> None:
    slow = DeviceState("slow", "training", epoch=2, epochs=3, cpu_use=0.98, throttled=0.5)
    fast = DeviceState("fast", "waiting", ((90.0, "training"), (92.0, "waiting")))
    text = drawn(Board(replace(state, time=100.0, devices=(fast, slow))), 140)
    assert (
        "slow holds the round back: training epoch 2/3, 98% of its CPU quota used, "
        "throttled in 50% of periods; waiting: fast 8 s\n"
    ) in text


def test_a_slow_link_is_told(state: Snapshot) -> None:
    slow = DeviceState("slow", "sending", sent=Traffic(rate=125e3))
    fast = DeviceState("fast", "waiting")
    text = drawn(Board(replace(state, devices=(fast, slow))), 140)
    assert "sending, its link carries 125 kB/s; waiting: fast over 240 s\n" in text


def test_the_timeline_ends_where_a_device_left() -> None:
    left = DeviceState("a", "gone", tuple((float(at), "training") for at in range(2, 121, 2)))
    text = drawn(Board(nobody(time=240.0, devices=(left,))), 122)
    assert f"\na {'█' * 60}\n" in text


@pytest.mark.parametrize("width", [20, 41, 42])
def test_a_long_name_leaves_half_of_a_narrow_terminal_for_the_timeline(width: int) -> None:
    device = DeviceState("n" * 41, "training", ((239.0, "training"),))
    lines = drawn(Board(nobody(time=240.0, devices=(device,))), width).splitlines()
    (timeline,) = [line for line in lines if line.startswith("n" * (width // 2 - 1) + "… ")]
    assert timeline == timeline[: width // 2 + 1].ljust(width - 1) + "█"


def test_alerts_are_told() -> None:
    text = drawn(Board(nobody(alerts=(Alert("Stuck", "a"), Alert("Full")))), 80)
    assert text.endswith("alerts: Stuck (a), Full\n")


@pytest.mark.parametrize(
    ("values", "blocks"), [([1.0], "▁"), ([2, 2], "▁▁"), ([0, 3.5, 7], "▁▅█"), ([7, 0], "█▁")]
)
def test_a_sparkline(values: list[float], blocks: str) -> None:
    assert sparkline(values) == blocks


def test_a_run_that_diverged_says_nan_and_has_the_curve_before(state: Snapshot) -> None:
    assert state.run is not None
    run = replace(state.run, losses=(1.0, 8.0, float("inf"), float("nan")))
    assert "loss nan ▁█\n" in drawn(Board(replace(state, run=run)), 140)
    assert sparkline([float("nan")]) == ""


def test_a_client_of_another_version_may_be_in_a_phase_of_its_own(state: Snapshot) -> None:
    paused = DeviceState("a", "paused", ((99.0, "paused"),))
    text = drawn(
        Board(replace(state, time=100.0, devices=(paused, DeviceState("b", "waiting")))), 122
    )
    assert text.count("paused") == 1
    assert re.search(r"\na +\?\n", text)
    assert "holds the round back" not in text


def test_a_long_sparkline_is_of_the_last_values() -> None:
    assert sparkline([9.0, *range(30)])[:2] == "▁▁"


def many(count: int) -> Snapshot:
    return nobody(devices=tuple(DeviceState(f"c{n:02}", phase="waiting") for n in range(count)))


def test_energy_is_shown_at_100_columns_and_the_footer_says_what_is_not(state: Snapshot) -> None:
    lines = drawn(Board(state), 100).splitlines()
    (titles,) = [line.split() for line in lines if line.startswith("client ")]
    assert "kJ" in titles
    left_out = lines[-1].removeprefix("← wider terminal: ").split(", ")
    assert left_out[0] == "memory MiB"
    assert "W" in left_out
    assert set(left_out).isdisjoint(titles)
    assert "wider" not in drawn(Board(state), 200)


def test_a_print_has_all_devices() -> None:
    text = drawn(Board(many(30)), 80)
    assert all(f"\nc{n:02} " in text for n in range(30))
    assert "keys" not in text


def test_a_prometheus_without_the_rules_says_which_are_missing(state: Snapshot) -> None:
    facts, phases, curves, _ = top_answers()
    facts = [fact for fact in facts if fact.labels["__name__"] not in RULES]
    text = drawn(Board(snapshot(facts, phases, curves, [])), 300)
    assert text.startswith(
        "this Prometheus lacks recording rules of fedbench's "
        "compose/prometheus/rules/recording.yml: cpu_use:ratio, memory_use:ratio, power:watts, "
    )
    assert text.index("slowness:ratio") < text.index("\n")
    assert "CPU of quota" in text  # it stays, without a figure
    row = next(line for line in text.splitlines() if line.startswith("laptop "))
    assert row.split().count("-") == 1
