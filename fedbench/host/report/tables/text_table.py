"""Tables of text: a header and rows."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from io import StringIO

Table = tuple[Sequence[str], list[Sequence[str]]]


def figure(value: float | None, form: str) -> str:
    """A number as `form` has it; a dash where it was not measured."""
    return "-" if value is None else format(value, form)


def duration(seconds: float) -> str:
    """A time as people say it, such as `3 min 20 s` or `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def without(table: Table, titles: Collection[str]) -> Table:
    """The table without the columns of these titles."""
    header, rows = table
    kept = [number for number, title in enumerate(header) if title not in titles]
    return [header[n] for n in kept], [[row[n] for n in kept] for row in rows]


def empty_columns(table: Table) -> list[str]:
    """Titles of the columns in which no row has anything but a dash."""
    header, rows = table
    return [title for n, title in enumerate(header) if all(row[n] == "-" for row in rows)]


def markdown(table: Table) -> str:
    """The table as Markdown has it, without a newline at its end."""
    header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def csv_text(columns: Sequence[str], records: Iterable[Mapping[str, object]]) -> str:
    """The records as CSV has them, a line each; what one lacks, or has as None, is empty."""
    text = StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
