"""What the host really draws: the energy counters of its CPU packages (RAPL), where they are read.

Linux shows them of Intel and AMD alike as `/sys/class/powercap/intel-rapl:N`, mostly to root alone;
virtual machines have none. It is measured, of the whole host and of nothing but its CPUs: another
number than the modelled energy of the devices, and never added to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fedbench.errors import DamagedFileError
from fedbench.records import Record, replace_text
from fedbench.records.files import read_record
from fedbench.records.lines import warn_once

POWERCAP = Path("/sys/class/powercap")
FILE = "host_energy.json"


class HostEnergy(Record):
    """Joules that all CPU packages of the host drew in `seconds` wall seconds of a run."""

    joules: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Counter:
    """The counter of a package, in microjoules; it begins again at zero beyond its range.

    Raises:
        OSError: there is none, or it must not be read.
    """

    def __init__(self, domain: Path) -> None:
        self._file = domain / "energy_uj"
        self._range = int((domain / "max_energy_range_uj").read_text())
        self._last = self._read()

    def drawn(self) -> float:
        """Return the joules since the last question; at most one turn around the range counts."""
        before, self._last = self._last, self._read()
        more = self._last - before
        return (more if more >= 0 else more + self._range) / 1e6

    def _read(self) -> int:
        return int(self._file.read_text())


class HostEnergyMeter:
    """Adds up what the host draws during a run, on top of what the run's folder has already."""

    def __init__(
        self,
        folder: Path,
        powercap: Path = POWERCAP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._counters = list(_counters(powercap))
        self._clock = clock
        self._since = clock()
        self._sum = read(folder) or HostEnergy()

    def tick(self) -> None:
        """Write what was drawn until now; do nothing where no counter can be read."""
        if not self._counters:
            return
        before, self._since = self._since, self._clock()
        self._sum = HostEnergy(
            joules=self._sum.joules + sum(counter.drawn() for counter in self._counters),
            seconds=self._sum.seconds + self._since - before,
        )
        replace_text(self._folder / FILE, self._sum.model_dump_json() + "\n")


def read(folder: Path) -> HostEnergy | None:
    """Read what was measured during a run; None where nothing could be.

    What is damaged is as good as not measured, and said: it is only for looking.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return read_record(path, HostEnergy)
    except DamagedFileError as error:
        warn_once(f"{error.message}; the host's own energy is left out")
        return None


def described(measured: HostEnergy | None) -> list[str]:
    """Describe it in a line, or in none."""
    if measured is None or not measured.seconds:
        return []
    watts = measured.joules / measured.seconds
    return [
        f"the host's CPUs really drew {measured.joules / 1e3:.2f} kJ in {measured.seconds:.0f} "
        f"wall s, {watts:.1f} W, measured by their counters (RAPL); not comparable with the "
        "modelled devices"
    ]


def _counters(powercap: Path) -> Iterator[Counter]:
    """Find the packages' counters: cores and memory are parts of them, `psys` is more."""
    for domain in sorted(powercap.glob("intel-rapl:*")):
        try:
            if (domain / "name").read_text().startswith("package"):
                yield Counter(domain)
        except (OSError, ValueError):  # not ours to read, or no figure
            continue
