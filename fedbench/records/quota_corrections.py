"""What the governor of a run corrected: written by it, read for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedbench.records import read_lines

FILE = "corrections.jsonl"


@dataclass(frozen=True)
class Correction:
    """One change of a computer's quota, in CPUs, and what it was made for.

    `late`: seconds by which a client of it was behind its device; `used`: CPUs that it used.
    """

    time: str
    computer: str
    quota_before: float
    quota_after: float
    late: float
    used: float


def read(folder: Path) -> list[Correction]:
    """Those of a run, oldest first."""
    return [Correction(**line) for line in read_lines(folder / FILE)]


def described(corrections: list[Correction]) -> list[str]:
    """One line for each computer: from where to where its quota went, and in how many steps."""
    lines = []
    for computer in sorted({one.computer for one in corrections}):
        own = [one for one in corrections if one.computer == computer]
        lines.append(
            f"{computer}: quota {own[0].quota_before:.2f} -> {own[-1].quota_after:.2f} CPUs in "
            f"{len(own)} corrections; it was {max(one.late for one in own):.1f} s late at most, "
            f"and used {own[-1].used:.2f} CPUs at the last"
        )
    return lines
