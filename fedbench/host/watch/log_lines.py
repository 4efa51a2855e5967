"""One line of a container's log: parsed, filtered, and made readable."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.text import Text

from fedbench.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error", "critical")
_STYLES = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
# What Prometheus and Grafana begin a line with: `level=warn` and its like.
_LOGFMT = re.compile(r"\blevel=\"?(debug|info|warn|error)")
_NAME_WIDTH = 12  # a longer name moves its line
_UNKNOWN = "unknown"  # earlier versions kept lines that do not say who wrote them, or when
_NEVER = datetime.fromtimestamp(0, UTC)
_NANOSECONDS = re.compile(r"(\.\d{6})\d*")


@dataclass(frozen=True)
class LogLine:
    """A line that a container wrote, and when. A line that is not JSON is all message."""

    time: datetime
    source: str  # the container's service
    fields: dict[str, Any]

    @classmethod
    def of(cls, fields: dict[str, Any]) -> LogLine:
        """Make the line of which `json` wrote the fields."""
        return cls(_time(fields) or _NEVER, str(_source(fields) or _UNKNOWN), fields)

    @classmethod
    def parse(cls, line: bytes) -> LogLine:
        """Parse what `json` wrote.

        Raises:
            ValueError: it is no such line.
        """
        if (fields := _json(line)) is None:
            raise ValueError("no line of a log")
        return cls.of(fields)

    @property
    def level(self) -> str:
        """One of `LEVELS`."""
        return str(self.fields["level"])

    def json(self) -> str:
        """Write one JSON object, of a plain line too, with the keys that are known of it."""
        return json.dumps(self.fields, ensure_ascii=False)

    def text(self) -> Text:
        """Write for people, in local time: `12:03:04 laptop round 3 …`, coloured by its level."""
        fields, style = self.fields, _STYLES.get(self.level, "")
        text = Text(f"{_format_clock(self.time.astimezone())} ", "dim")
        text.append(f"{self.source:{_NAME_WIDTH}} ", "cyan")
        if fields.get("round") is not None:
            text.append(f"round {fields['round']} ", "dim")
        if self.level not in ("debug", "info"):
            text.append(f"{self.level.upper()} ", style)
        text.append(str(fields["message"]), style)
        if trace := fields.get("exception"):
            text.append("".join(f"\n    {line}" for line in str(trace).splitlines()), style)
        return text


@dataclass(frozen=True)
class LineFilter:
    """Selects lines of a level at least, and of one run where `run` is named.

    A line that names no run, such as SuperLink's or a crash's last words, belongs to the run that
    was active at its time: `periods` are the run's.
    """

    level: str = "info"
    run: str | None = None
    periods: Sequence[tuple[datetime, datetime]] = ()

    def takes(self, line: LogLine) -> bool:
        """Return whether the line is selected."""
        high_enough = LEVELS.index(line.level) >= LEVELS.index(self.level)
        return high_enough and (self.run is None or self._is_of_run(line))

    def _is_of_run(self, line: LogLine) -> bool:
        named = line.fields.get("run")
        within = any(begin <= line.time <= end for begin, end in self.periods)
        return named == self.run or (named is None and within)


def parse_line(source: str, raw: str) -> LogLine:
    """Parse a line as Docker gives it: its time, a space, and what was written.

    JSON with our keys may come from another program. Where it does not say that this container
    wrote it, or when, its fields are set to say so.
    """
    stamp, _, written = raw.partition(" ")
    time = datetime.fromisoformat(_NANOSECONDS.sub(r"\1", stamp))
    if (fields := _json(written)) is None:
        return LogLine(time, source, _plain(time, source, written))
    if _source(fields) != source:
        fields["service"] = source
    if _time(fields) is None:
        fields["time"] = _stamp(time)
    return LogLine(time, source, fields)


def parse_level(value: str) -> str:
    """Return the level in lower case.

    Raises:
        ConfigError: there is no such level.
    """
    if (level := value.lower()) in LEVELS:
        return level
    raise ConfigError(f"--level {value}: no such level", f"expected one of {', '.join(LEVELS)}")


def parse_since(value: str, now: datetime) -> datetime:
    """Parse `30s`, `5m`, `2h`, `1d` before `now`, or a time such as 2026-11-25T12:00.

    A time without an offset such as +00:00 is local.

    Raises:
        ConfigError: the value is neither.
    """
    try:
        if age := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value):
            return now - timedelta(**{_UNITS[age[2]]: float(age[1])})
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--since {value}: not a time", "expected 30s, 5m, 2h, 1d or 2026-11-25T12:00"
        ) from None


def require_known_name(kind: str, name: str, known: Collection[str]) -> None:
    """Raise ConfigError unless the name is known.

    Raises:
        ConfigError: the name is not known; the hint lists the names that are.
    """
    if name not in known:
        raise ConfigError(f"no {kind} {name!r}", f"there are {', '.join(known) or 'none'}")


def _json(written: str | bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(written)
    except (ValueError, RecursionError):
        return None
    ours = isinstance(fields, dict) and "message" in fields and fields.get("level") in LEVELS
    return fields if ours else None


def _plain(time: datetime, source: str, written: str) -> dict[str, Any]:
    """Return the fields of a line by a library, a dying interpreter or another program."""
    match = _LOGFMT.search(written)
    level = {"warn": "warning"}.get(match[1], match[1]) if match else "info"
    return {"time": _stamp(time), "level": level, "service": source, "message": written}


def _source(fields: dict[str, Any]) -> object:
    """Return who wrote the line; a line of ours names a service or a client."""
    return fields.get("service") or fields.get("client")


def _time(fields: dict[str, Any]) -> datetime | None:
    """Return the time of the fields, UTC unless it has an offset; None if they have no time."""
    try:
        time = datetime.fromisoformat(fields["time"])
    except (KeyError, TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _stamp(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


def _format_clock(time: datetime) -> str:
    """Format the time of day, with the date if it is not today."""
    today = time.date() == datetime.now(time.tzinfo).date()
    return f"{time:%H:%M:%S}" if today else f"{time:%m-%d %H:%M:%S}"
