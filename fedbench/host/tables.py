"""Tables of text: a header and rows."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
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
