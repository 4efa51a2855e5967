from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedbench.errors import ConfigError
from fedbench.host.watch.log_lines import LineFilter, LogLine, parse_level, parse_line, parse_since

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "time": "2026-01-02T11:59:58.250+00:00", "level": "info", "logger": "fedbench.node",
    "message": "train message", "client": "laptop", "device": "laptop-i5", "run": "r1", "round": 3,
}  # fmt: skip
STAMP = "2026-01-02T11:59:58.250123456Z"


def line(**changes: Any) -> LogLine:
    return parse_line("laptop", f"{STAMP} {json.dumps(FIELDS | changes)}")


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.host.watch.log_lines._format_clock", lambda time: f"{time:%M:%S}")


def test_a_line_of_ours_keeps_its_fields_and_has_dockers_time() -> None:
    read_line = line()
    assert read_line.fields == FIELDS
    assert read_line.source == "laptop"
    assert read_line.time == datetime(2026, 1, 2, 11, 59, 58, 250123, UTC)
    assert json.loads(read_line.json()) == FIELDS


@pytest.mark.parametrize(
    "written",
    ["Segmentation fault", "", "  warnings.warn(", '{"level": "info"}', "[1, 2]", "12", '{"a'],
)
def test_any_other_line_is_all_message(written: str) -> None:
    plain = parse_line("server", f"{STAMP} {written}")
    assert plain.fields == {
        "time": "2026-01-02T11:59:58.250+00:00", "level": "info", "service": "server",
        "message": written,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "level"),
    [
        ("time=x level=INFO msg=ready", "info"),
        ("time=x level=warn msg=slow", "warning"),
        ('level="error" msg=x', "error"),
        ("level=debug", "debug"),
        ("the level=high", "info"),
    ],
)
def test_prometheus_and_grafana_say_their_level_their_own_way(written: str, level: str) -> None:
    assert parse_line("prometheus", f"{STAMP} {written}").level == level


@pytest.mark.parametrize("stamp", ["2026-01-02T11:59:58Z", "2026-01-02T11:59:58.25Z"])
def test_docker_leaves_out_zeros(stamp: str) -> None:
    assert parse_line("server", f"{stamp} x").time.second == 58


def test_a_line_that_was_written_as_json_is_read_again() -> None:
    for one in (line(), parse_line("server", f"{STAMP} plain")):
        again = LogLine.of(json.loads(one.json()))
        assert (again.source, again.fields) == (one.source, one.fields)


FOREIGN: dict[str, Any] = {"message": "loaded", "level": "info"}


@pytest.mark.parametrize(
    "more",
    [
        {}, {"service": None}, {"client": "10.0.0.3:4000"}, {"service": ["a"]}, {"time": None},
        {"time": "12:03"}, {"time": 1767355198},
    ],
)  # fmt: skip
def test_a_line_of_another_program_says_who_wrote_it_and_when(more: dict[str, Any]) -> None:
    one = parse_line("laptop", f"{STAMP} {json.dumps(FOREIGN | more)}")
    added = {"service": "laptop", "time": "2026-01-02T11:59:58.250+00:00"}
    assert one.fields == FOREIGN | more | added
    again = LogLine.of(json.loads(one.json()))
    assert (again.source, again.time) == ("laptop", one.time.replace(microsecond=250_000))


def test_a_time_without_a_zone_is_utc() -> None:
    one = parse_line(
        "laptop", f"{STAMP} {json.dumps(FOREIGN | {'time': '2026-01-02 11:59:58,25'})}"
    )
    assert LogLine.of(one.fields).time == datetime(2026, 1, 2, 11, 59, 58, 250_000, UTC)


def test_a_line_that_was_kept_without_a_name_or_time_is_read() -> None:
    one = LogLine.of(FOREIGN)
    assert (one.source, one.level) == ("unknown", "info")
    assert sorted([line(), one], key=lambda each: each.time)[0] is one
    assert one.text().plain.endswith("loaded")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "59:58 laptop       round 3 train message"),
        ({"round": None}, "59:58 laptop       train message"),
        ({"level": "debug", "round": None}, "59:58 laptop       train message"),
        ({"level": "warning"}, "59:58 laptop       round 3 WARNING train message"),
        (
            {"level": "error", "exception": "Traceback:\nKeyError"},
            "59:58 laptop       round 3 ERROR train message\n    Traceback:\n    KeyError",
        ),
        ({"exception": 12}, "59:58 laptop       round 3 train message\n    12"),
    ],
)
def test_people_read_time_name_round_and_message(changes: dict[str, Any], text: str) -> None:
    assert line(**changes).text().plain == text


def test_another_days_line_has_its_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert "-" in line().text().plain.split(" ", maxsplit=1)[0]
    now = datetime.now(UTC)
    assert (
        parse_line("a", f"{now.isoformat()} x")
        .text()
        .plain.startswith(f"{now.astimezone():%H:%M:%S}")
    )


@pytest.mark.parametrize(
    ("level", "taken"),
    [("debug", 4), ("info", 3), ("warning", 2), ("error", 1), ("critical", 0)],
)
def test_a_level_takes_those_above_it(level: str, taken: int) -> None:
    lines = [line(level=name) for name in ("debug", "info", "warning", "error")]
    assert sum(LineFilter(level).takes(one) for one in lines) == taken


def test_a_run_takes_its_own_lines_alone() -> None:
    plain = parse_line("laptop", f"{STAMP} plain")
    lines = [line(), line(run="r2"), line(run=None), plain]
    assert [LineFilter(run="r1").takes(one) for one in lines] == [True, False, False, False]
    at = plain.time
    then = LineFilter(run="r1", periods=[(at - timedelta(seconds=1), at)])
    assert [then.takes(one) for one in lines] == [True, False, True, True]
    later = LineFilter(run="r1", periods=[(at + timedelta(seconds=1), at + timedelta(seconds=2))])
    assert [later.takes(one) for one in lines] == [True, False, False, False]


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("30s", "2026-01-02T11:59:30+00:00"),
        ("5m", "2026-01-02T11:55:00+00:00"),
        ("1.5h", "2026-01-02T10:30:00+00:00"),
        ("1d", "2026-01-01T12:00:00+00:00"),
        ("2026-01-02T13:30+02:00", "2026-01-02T11:30:00+00:00"),
    ],
)
def test_since_is_an_age_or_a_time(value: str, moment: str) -> None:
    assert parse_since(value, NOW) == datetime.fromisoformat(moment)


@pytest.mark.parametrize("value", ["", "5", "5 minutes", "-5m", "yesterday", f"{10**12}d"])
def test_what_is_no_time_is_an_error(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_since(value, NOW)
    assert caught.value.message == f"--since {value}: not a time"
    assert caught.value.hint == "expected 30s, 5m, 2h, 1d or 2026-11-25T12:00"


def test_levels_have_names() -> None:
    assert parse_level("WARNING") == "warning"
    with pytest.raises(ConfigError) as caught:
        parse_level("loud")
    assert caught.value.message == "--level loud: no such level"
    assert caught.value.hint == "expected one of debug, info, warning, error, critical"
