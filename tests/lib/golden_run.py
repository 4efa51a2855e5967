"""A run of an earlier version, as tests change it: from tests/golden/runs."""

from __future__ import annotations

import shutil
from pathlib import Path

from golden import GOLDEN

from fedbench.records.runs import Run

RUN = GOLDEN / "runs" / "20260102-030405-digits"


def unfinished_run(runs: Path) -> Run:
    """Copy it into a folder of runs, without the event that ended it."""
    path = Path(shutil.copytree(RUN, runs / RUN.name))
    events = path / "events.jsonl"
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:-1]))
    return Run(path)
