"""`chaos.json`, and RELIABILITY.md's table of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fedbench.errors import DamagedFileError
from fedbench.host.chaos.verdict import ChaosRow
from fedbench.records.files import read_whole, reason, replace_text

FILE = Path("chaos", "chaos.json")
"""Below the folder of all runs."""
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
"""Around the table in RELIABILITY.md."""
HEADER = ("scenario", "what is done", "expected", "seen", "known after", "rounds lost", "ok")
_ROWS = TypeAdapter(list[ChaosRow])


class ChaosResults:
    """The rows of a matrix, on disk after each scenario.

    Those of scenarios that are run again are replaced; a matrix of all begins `anew`.
    """

    def __init__(self, path: Path, *, anew: bool) -> None:
        self._path = path
        self.rows = [] if anew or not path.exists() else read(path)

    def add(self, row: ChaosRow) -> None:
        """Keep a row, in the place of an earlier one of its scenario."""
        names = [known.scenario for known in self.rows]
        if row.scenario in names:
            self.rows[names.index(row.scenario)] = row
        else:
            self.rows.append(row)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        values = [each.model_dump(mode="json") for each in self.rows]
        replace_text(self._path, json.dumps(values, indent=2) + "\n")


def read(path: Path) -> list[ChaosRow]:
    """Return what is in a `chaos.json`.

    Raises:
        DamagedFileError: it is missing, or no such file.
    """
    content = read_whole(path)
    try:
        return _ROWS.validate_json(content)
    except ValidationError as error:
        raise DamagedFileError(path, f"is damaged: {reason(error)}") from None


def table(rows: Sequence[ChaosRow]) -> tuple[Sequence[str], list[list[str]]]:
    """Return the rows as a table."""
    return HEADER, [list(_cells(row)) for row in rows]


def in_markers(document: str, rows: Sequence[ChaosRow]) -> str:
    """Return a document with the table in the place of what was between its markers.

    Raises:
        ValueError: it has no such markers.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected a line {BEGIN} and a line {END}")
    return f"{before}{BEGIN}\n{markdown(rows)}\n{END}{after}"


def markdown(rows: Sequence[ChaosRow]) -> str:
    """Return the table as Markdown."""
    header, lines = table(rows)
    cells = [header, ["---"] * len(header), *([_escaped(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _cells(row: ChaosRow) -> Iterator[str]:
    yield row.scenario
    yield row.description
    yield row.expected
    yield "; ".join([row.seen, *(f"**{problem}**" for problem in row.problems)])
    yield "-" if row.detected_seconds is None else f"{row.detected_seconds:.1f} s"
    yield "-" if row.ok is None else str(row.rounds_lost)
    yield {True: "yes", False: "**no**", None: "skipped"}[row.ok]


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
