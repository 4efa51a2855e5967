"""Tables of text: a header and rows."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from io import StringIO

Table = tuple[Sequence[str], list[Sequence[str]]]


def without(table: Table, titles: Collection[str]) -> Table:
    """Return the table without the columns of these titles."""
    header, rows = table
    kept = [number for number, title in enumerate(header) if title not in titles]
    return [header[n] for n in kept], [[row[n] for n in kept] for row in rows]


def empty_columns(table: Table) -> list[str]:
    """List the titles of the columns in which no row has anything but a dash."""
    header, rows = table
    return [title for n, title in enumerate(header) if all(row[n] == "-" for row in rows)]


def markdown_table(table: Table) -> str:
    """Write the table as Markdown, without a newline at its end."""
    header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def records_csv(titles: Sequence[str], records: Iterable[Mapping[str, object]]) -> str:
    """Write the records as CSV, a line each; a field that is None or missing is empty."""
    text = StringIO()
    writer = csv.DictWriter(text, titles, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
