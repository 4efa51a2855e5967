"""Where a checkout keeps what it makes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT = os.environ.get("FEDBENCH_PROJECT", "fedbench")


@dataclass(frozen=True)
class Places:
    """Where a checkout keeps what it makes."""

    root: Path

    @property
    def state(self) -> Path:
        """The stack's own files: its compose project and its certificates."""
        return self.root / ".fedbench" / PROJECT

    @property
    def runs(self) -> Path:
        """One folder per run."""
        return self.root / "runs"

    @property
    def calibration(self) -> Path:
        """How fast this host trains, as it was measured."""
        return self.root / ".fedbench" / "calibration.json"

    @property
    def data(self) -> Path:
        """One folder of partitions per client."""
        return self.root / "data" / PROJECT

    @property
    def in_process(self) -> Path:
        """The same for runs in one program."""
        return self.root / "data" / "in-process"
