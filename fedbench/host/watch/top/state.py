"""What is known of a federation at one moment: its run, its devices, who holds the round back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

_BUSY = ("sending", "evaluating", "training", "receiving")  # the last is the farthest from its end


@dataclass(frozen=True)
class Traffic:
    """What a device exchanged with the server in one direction; None is what nobody measured.

    `rate` is bytes per wall second, lately; `bytes` are those of the run's rounds so far;
    `last_bytes` and wall `last_seconds` those of the last exchange of a model.
    """

    rate: float | None = None
    bytes: float | None = None
    last_bytes: float | None = None
    last_seconds: float | None = None


@dataclass(frozen=True)
class GpuState:
    """A device's GPU, in use (0 to 1), bytes and watts; None is what it does not tell."""

    use: float | None = None
    memory: float | None = None
    memory_total: float | None = None
    watts: float | None = None


@dataclass(frozen=True)
class DeviceState:
    """One client and its device (of a device profile); None is what nobody measured.

    Speeds are samples per emulated second of the epoch so far, `epoch_seconds` and `target_seconds`
    (the real device's) emulated seconds of a local epoch, `slowness` its part of the median
    client's; `cpu_use` is a part of the quota, `throttled` of the scheduler's periods, `memory_use`
    of the limit. Memory is in bytes, energy in joules of the run's rounds so far, `watts` per
    emulated second. `cpu_seconds`, `memory_peak` and `memory_kills` count since its container
    started.
    """

    client: str
    phase: str = "-"
    phases: tuple[tuple[float, str], ...] = ()  # Unix time and phase, the oldest first
    profile: str = ""
    epoch: float | None = None
    epochs: float | None = None
    speed: float | None = None
    epoch_seconds: float | None = None
    target_seconds: float | None = None
    epoch_wall_seconds: float | None = None
    slowness: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    cpus: float | None = None
    cpu_seconds: float | None = None
    cpu_use: float | None = None
    throttled: float | None = None
    memory: float | None = None
    memory_peak: float | None = None
    memory_limit: float | None = None
    memory_use: float | None = None
    memory_kills: float | None = None
    sent: Traffic = Traffic()
    received: Traffic = Traffic()
    watts: float | None = None
    idle_joules: float | None = None
    busy_joules: float | None = None
    gpu: GpuState = GpuState()

    @property
    def error(self) -> float | None:
        """How far the epoch was from its target: 0.05 is five percent too slow."""
        if self.epoch_seconds is None or not self.target_seconds:
            return None
        return self.epoch_seconds / self.target_seconds - 1

    @property
    def joules(self) -> float | None:
        """Modelled energy, idle and busy."""
        if self.idle_joules is None or self.busy_joules is None:
            return None
        return self.idle_joules + self.busy_joules

    @property
    def in_phase_since(self) -> float | None:
        """Unix time since which it has been in its phase; None if that was before the window."""
        changes = [now for (_, before), (now, after) in pairwise(self.phases) if before != after]
        return changes[-1] if changes else None


@dataclass(frozen=True)
class RunState:
    """The run as its server sees it; the curves have one value per change, the oldest first."""

    run: str
    experiment: str
    profile: str
    model: str
    phase: str
    round: int
    rounds: int
    round_seconds: float | None
    dilation: float
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def progress(self) -> float:
        """Part of the rounds that are over, 0 to 1."""
        over = self.round - (self.phase == "running")
        return over / self.rounds if self.rounds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Wall seconds, by the last round; None before the first one is over or after the last."""
        last = self.round_seconds
        if self.phase != "running" or last is None or not math.isfinite(last):
            return None
        return (1 - self.progress) * self.rounds * last


@dataclass(frozen=True)
class Holding:
    """A client for which the others wait, and since how many wall seconds each does."""

    client: DeviceState
    waiting: Mapping[str, float | None]


@dataclass(frozen=True)
class Alert:
    """An alert that fires, of a client or, where that is empty, of the whole federation."""

    name: str
    client: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.client})" if self.client else self.name


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment; `time` is Prometheus', in Unix seconds.

    `missing_rules` are the recording rules without which some figures are not known.
    """

    time: float
    runs: tuple[str, ...]
    run: RunState | None
    devices: tuple[DeviceState, ...]
    alerts: tuple[Alert, ...] = ()
    missing_rules: tuple[str, ...] = ()

    @property
    def holding(self) -> Holding | None:
        """Who holds the round back; None while nobody waits for anybody."""
        busy = [device for device in self.devices if device.phase in _BUSY]
        waiting = [device for device in self.devices if device.phase == "waiting"]
        if not self.run or self.run.phase != "running" or not busy or not waiting:
            return None
        since = {device.client: device.in_phase_since for device in waiting}
        return Holding(
            max(busy, key=_left),
            {name: None if at is None else self.time - at for name, at in since.items()},
        )


def _left(device: DeviceState) -> tuple[int, float]:
    """Return what is left to a busy device in this round: phases, and wall seconds of training."""
    order = _BUSY.index(device.phase)
    if device.epoch is None or device.epochs is None:
        return order, 0.0
    return order, (device.epochs - device.epoch + 1) * (device.epoch_wall_seconds or 0.0)
