from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any, cast

import golden
import pytest
from rich.console import Console
from rich.live import Live

from fedbench.errors import HostError
from fedbench.host.watch.prometheus import Prometheus, Sample, Series
from fedbench.host.watch.top.live import Lines, LiveRun, describe, describe_round
from fedbench.records import RoundRecord
from fedbench.records.clock import REAL_TIME
from fedbench.records.runs import Run
from fedbench.records.verdict import REAL, Emulation

GOLDEN = golden.GOLDEN / "runs" / "20260102-030405-digits"
LINES = golden.GOLDEN / "top" / "lines.txt"
SLOWED = Emulation(dilation=2.5, targets={"laptop": 100.0})


class FakePrometheus:
    """Answers with the same samples whenever it is asked what is now, or not at all."""

    def __init__(self, samples: list[Sample] | None) -> None:
        self._samples = samples

    def query(self, expression: str) -> list[Sample]:
        if self._samples is None:
            raise HostError("Prometheus does not answer")
        return self._samples if expression.startswith("{__name__=~") else []

    def query_range(self, expression: str, seconds: int, step: int) -> list[Series]:
        return []

    def recording_rules(self) -> set[str]:
        return set()


def prometheus(samples: list[Sample] | None) -> Prometheus:
    return cast("Prometheus", FakePrometheus(samples))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run of two rounds; legacy-pc failed in the second."""
    return Run(Path(shutil.copytree(GOLDEN, tmp_path / GOLDEN.name)))


def rounds(run: Run) -> list[RoundRecord]:
    return run.summary().rounds


def story(run: Run) -> list[str]:
    """Return what is told of the events of a run, a line each."""
    lines = [describe(event, rounds(run), REAL) for event in run.events()]
    return [line for line in lines if line]


EVENTS: dict[str, dict[str, Any]] = {
    "a file was repaired": {
        "event": "repaired",
        "reason": "checkpoint.safetensors was damaged and is repaired",
    },
    "waiting": {"event": "waiting", "connected": [], "needed": 3},
    "incomplete": {"event": "incomplete", "connected": ["laptop"], "needed": 3},
    "nobody came": {"event": "nobody", "needed": 3},
    "going on": {"event": "started", "after_round": 4},
    "a round": {"event": "round", "round": 2, "rounds": 6, "clients": ["a", "b"]},
    "trained": {"event": "trained", "round": 2, "client": "a", "seconds": 3.25, "accuracy": 0.5},
    "trained, not evaluated": {"event": "trained", "round": 2, "client": "a", "seconds": 0.0},
    "failed": {"event": "failed", "round": 2, "client": "a", "reason": "out of memory"},
    "too few trained": {
        "event": "below_minimum", "round": 2,
        "reason": "round 2: 0 clients trained, at least 1 have to; the model stays as it was",
    },
    "left out, no data": {"event": "unidentified", "reason": "no /data"},
    "left out, other data": {"event": "left_out", "client": "a", "data": "digits-iid-3"},
    "left out, an error": {"event": "unidentified", "node": 7, "reason": "ValueError: corrupt"},
    "recorded": {"event": "recorded", "round": 1, "rounds": 2},
    "progress": {"event": "progress", "images": 3, "of": 400, "seconds_left": None},
    "progress, time left": {"event": "progress", "images": 100, "of": 400, "seconds_left": 61.2},
}  # fmt: skip
EMULATED: dict[str, dict[str, Any]] = {
    "emulated: trained": {
        "event": "trained", "round": 2, "client": "laptop", "seconds": 5.0, "accuracy": 0.5,
    },
    "emulated: a real device trained": {
        "event": "trained", "round": 2, "client": "visitor", "seconds": 5.0,
    },
    "emulated: recorded": {"event": "recorded", "round": 1, "rounds": 2},
    "emulated: not held": {
        "event": "not_held", "round": 2, "client": "laptop", "reason": "+10% off",
    },
}  # fmt: skip


def test_a_round_whose_record_was_lost_is_no_line(run: Run) -> None:
    assert describe({"event": "recorded", "round": 1, "rounds": 2}, [], REAL) == ""


@pytest.mark.parametrize("title", EVENTS)
def test_an_event_is_a_line(title: str, run: Run) -> None:
    golden.check_section(LINES, title, describe(EVENTS[title], rounds(run), REAL))


@pytest.mark.parametrize(
    "event",
    [
        {"event": "started", "after_round": 0},
        {"event": "evaluated", "round": 2, "client": "a", "seconds": 1.0, "accuracy": 0.5},
        {"event": "finished"},
        {"event": "stopped"},
        {"event": "error", "reason": "ValueError: 3"},
    ],
)
def test_nothing_is_told_of_some_events(event: dict[str, Any], run: Run) -> None:
    assert describe(event, rounds(run), REAL) == ""


@pytest.mark.parametrize("title", EMULATED)
def test_a_line_tells_wall_seconds_from_emulated_ones(title: str, run: Run) -> None:
    golden.check_section(LINES, title, describe(EMULATED[title], rounds(run), SLOWED))


def test_every_event_of_a_run_can_be_told(run: Run) -> None:
    golden.check_section(LINES, "a run", "\n".join(story(run)))


@pytest.mark.parametrize("total", [2, 3, 60, 600])
def test_the_time_left_follows_from_the_mean_round(total: int, run: Run) -> None:
    line = describe_round(rounds(run), total, REAL_TIME)
    golden.check_section(LINES, f"round 2 of {total}", line)


def test_a_round_that_nobody_evaluated_has_no_accuracy(run: Run) -> None:
    record = rounds(run)[1].model_copy(update={"server_accuracy": None, "server_loss": None})
    line = describe_round([record], 2, REAL_TIME)
    golden.check_section(LINES, "round 2, nobody evaluated", line)


def test_each_event_is_told_once_however_the_file_grows(run: Run) -> None:
    told = story(run)
    events, recorded = run.path / "events.jsonl", run.path / "rounds.jsonl"
    happened, records = events.read_bytes(), recorded.read_bytes().splitlines(keepends=True)
    events.unlink()
    recorded.unlink()
    said: list[str] = []
    lines = Lines(run, said.append)
    lines()
    assert said == []
    written = 0
    for end in range(0, len(happened) + 1, 37):  # in pieces that end amid lines
        with events.open("ab") as file:
            file.write(happened[written:end])
        written = end
        recorded.write_bytes(b"".join(records[: happened[:end].count(b'"recorded", ') + 1]))
        lines()
    with events.open("ab") as file:
        file.write(happened[written:])
    lines()
    lines()
    assert said == told


def test_a_run_that_goes_on_does_not_tell_its_past_again(run: Run) -> None:
    said: list[str] = []
    lines = Lines(run, said.append)
    lines()
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"time": "2026-01-02T03:05:00.000+00:00", "event": "started", ')
        file.write('"after_round": 2}\n')
    lines()
    golden.check_section(LINES, "going on after round 2", "\n".join(said))


def samples(client: str, phase: str, **figures: float) -> list[Sample]:
    phases = [
        Sample(
            {"__name__": "fedbench_client_phase", "client": client, "phase": name},
            float(name == phase),
        )
        for name in ("waiting", "training", "evaluating")
    ]
    values = [
        Sample({"__name__": f"fedbench_{name}", "client": client}, value)
        for name, value in figures.items()
    ]
    return phases + values


def drawn(run: Run, clients: list[str], answer: list[Sample] | None) -> list[list[str]]:
    """What the view shows: the lines above the table, then the cells of each row."""
    output = io.StringIO()
    console = Console(file=output, width=140, force_terminal=True, color_system=None)
    live = Live(console=console, auto_refresh=False)
    view = LiveRun(run, clients, prometheus(answer), live)
    view()
    console.print(live.renderable)
    shown = [line for line in output.getvalue().splitlines() if line.strip()]
    return [re.split(r"\s{2,}", line.strip()) for line in shown]


def test_the_view_shows_what_each_client_does(run: Run) -> None:
    answer = samples(
        "laptop",
        "training",
        local_epoch=2.0,
        local_epochs=4.0,
        samples_per_second=120.4,
        local_epoch_last_seconds=4.25,
        local_accuracy=0.625,
        local_loss=1.25,
        target_epoch_seconds=4.0,
    ) + samples("visitor", "waiting")
    shown = drawn(run, ["laptop", "legacy-pc"], answer)
    assert [" ".join(line) for line in shown[:6]] == story(run)[-6:]
    assert shown[7:] == [
        ["laptop", "training", "██░░ 2/4", "120", "4.25", "4.00", "+6.2%", "-", "1.250", "0.625"],
        ["legacy-pc", *["-"] * 9],
        ["visitor", "waiting", *["-"] * 8],
    ]


def test_the_view_does_without_prometheus(run: Run) -> None:
    (run.path / "events.jsonl").unlink()
    shown = drawn(run, ["laptop"], None)
    assert shown[0] == ["starting"]
    assert shown[2:] == [["laptop", "-", "-", "-"]]
