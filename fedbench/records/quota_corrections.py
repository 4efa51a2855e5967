"""What the governor of a run corrected: written by it, read for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from fedbench.records.lines import skim_lines

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


_CORRECTION = TypeAdapter(Correction)


def read(folder: Path) -> list[Correction]:
    """Return those of a run, oldest first."""
    return skim_lines(folder / FILE, _CORRECTION.validate_json)


def described(corrections: list[Correction]) -> list[str]:
    """Return a line for each computer: where its quota went, and in how many steps."""
    lines = []
    for computer in sorted({correction.computer for correction in corrections}):
        steps = [step for step in corrections if step.computer == computer]
        lines.append(
            f"{computer}: quota {steps[0].quota_before:.2f} -> {steps[-1].quota_after:.2f} CPUs "
            f"in {len(steps)} corrections; it was {max(step.late for step in steps):.1f} s late "
            f"at most, and used {steps[-1].used:.2f} CPUs at the last"
        )
    return lines
