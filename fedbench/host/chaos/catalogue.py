"""Every fault by its name."""

from __future__ import annotations

from collections.abc import Mapping

from fedbench.host.chaos.disk import DiskFull
from fedbench.host.chaos.links import Cut, Link
from fedbench.host.chaos.misbehaviour import Misbehave
from fedbench.host.chaos.processes import Crash, Kill, OutOfMemory, Pause, Starve, StopContainer
from fedbench.host.chaos.scenario import FaultName
from fedbench.host.chaos.victim import Fault
from fedbench.host.chaos.whole import Clock, Down, Unwatch

FAULTS: Mapping[FaultName, type[Fault]] = {
    "kill": Kill,
    "stop": StopContainer,
    "crash": Crash,
    "unwatch": Unwatch,
    "pause": Pause,
    "out-of-memory": OutOfMemory,
    "starve": Starve,
    "cut": Cut,
    "link": Link,
    "misbehave": Misbehave,
    "clock": Clock,
    "disk-full": DiskFull,
    "down": Down,
}
