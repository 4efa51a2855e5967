"""Tables of text: a header and rows."""

from __future__ import annotations

from collections.abc import Sequence

Table = tuple[Sequence[str], list[Sequence[str]]]


def markdown(table: Table) -> str:
    """The table as Markdown has it, without a newline at its end."""
    header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
