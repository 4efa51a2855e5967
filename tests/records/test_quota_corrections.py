from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from fedbench.records.quota_corrections import FILE, Correction, described, read

FIRST = Correction("2026-11-24T12:00:00+00:00", "laptop", 1.0, 1.25, 0.7, 0.99)
LAST = Correction("2026-11-24T12:00:08+00:00", "laptop", 1.25, 1.1, 0.0, 0.875)
OTHER = Correction("2026-11-24T12:00:04+00:00", "pc", 0.25, 0.2, 0.0, 0.16)


def test_what_was_corrected_is_read_back(tmp_path: Path) -> None:
    lines = [json.dumps(asdict(one)) + "\n" for one in (FIRST, OTHER, LAST)]
    (tmp_path / FILE).write_text("".join(lines))
    assert read(tmp_path) == [FIRST, OTHER, LAST]


def test_a_run_without_a_governor_has_none(tmp_path: Path) -> None:
    assert described(read(tmp_path)) == []


def test_each_computer_is_a_line() -> None:
    assert described([FIRST, OTHER, LAST]) == [
        "laptop: quota 1.00 -> 1.10 CPUs in 2 corrections; it was 0.7 s late at most, "
        "and used 0.88 CPUs at the last",
        "pc: quota 0.25 -> 0.20 CPUs in 1 corrections; it was 0.0 s late at most, "
        "and used 0.16 CPUs at the last",
    ]
