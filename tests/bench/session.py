"""Measures one part after the other: rows are kept as they come, and a part that fails is named."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from row import Row

from fedbench.records import replace_text

Part = Callable[[str], Iterable[Row]]


@dataclass
class Session:
    """What was measured so far; `file` has every row from the moment that it is there."""

    file: Path
    say: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def measure(self, parts: Mapping[str, Part]) -> None:
        """Measure all parts, also after one that fails."""
        self.say(f"rows are recorded in {self.file} as they are measured")
        for name, part in parts.items():
            began = time.monotonic()
            try:
                self._measure(name, part)
            except Exception as error:  # whatever it is, the other parts can do without this one
                traceback.print_exc()
                self.failed.append(name)
                self.say(f"the part {name} failed: {type(error).__name__}: {error}")
            self.say(f"the part {name} took {time.monotonic() - began:.0f} s")

    def _measure(self, name: str, part: Part) -> None:
        for row in part(f"make bench BENCH={name}"):
            self.rows.append(row)
            self._record(row)
            self.say(f"{row.name}: {row.value:.4g} {row.unit}")

    def _record(self, row: Row) -> None:
        """Put the row into the file, in the place of the one of its name; others stay."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(self.file.read_text()) if self.file.exists() else []
        rows = {each["name"]: each for each in before} | {row.name: row.to_json()}
        replace_text(self.file, json.dumps(list(rows.values()), indent=2) + "\n")
