"""What a federation does right now, as figures, from Prometheus' answers alone. Pure but for `ask`.

No file of the computer that it runs on is read: the federation may be on another one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from fedbench.host.prometheus import Prometheus, Sample, Series

WINDOW_SECONDS = 240  # of the timeline; a device that left is shown for as long
STEP_SECONDS = 2
_CURVE_SECONDS, _CURVE_STEP_SECONDS = 3600, 10
_NOW = (
    "client_phase", "client_dilation", "local_epoch", "local_epochs", "local_epoch_last_seconds",
    "samples_per_second", "target_epoch_seconds", "local_accuracy", "local_loss", "memory_bytes",
    "memory_limit_bytes", "device_watts", "energy_joules_total", "run_info", "run_phase", "round",
    "rounds", "round_last_seconds", "server_accuracy", "server_loss", "dilation",
)  # fmt: skip
_FACTS = f'{{__name__=~"ALERTS|fedbench_({"|".join(_NOW)})"}}'


def _rate(counter: str) -> str:
    return f'sum by (client) (rate(fedbench_{counter}{{client!=""}}[10s]))'


_RATES = {
    "cpu_use": f"{_rate('cpu_seconds_total')} / sum by (client) (fedbench_usable_cpus)",
    "throttled": f"{_rate('cpu_throttled_periods_total')} / {_rate('cpu_periods_total')}",
    "sent": _rate("sent_bytes_total"),
    "received": _rate("received_bytes_total"),
}
_ALL_RATES = " or ".join(
    f'label_replace({rate}, "figure", "{name}", "", "")' for name, rate in _RATES.items()
)
_CURVES = '{__name__=~"fedbench_server_(accuracy|loss)"}'


@dataclass(frozen=True)
class Device:
    """One client and its device; None is what nobody measured.

    Speeds are samples per emulated second, `epoch_seconds` and `target_seconds` (the real device's)
    emulated seconds of a local epoch; `cpu_use` is a part of the quota, `throttled` of the
    scheduler's periods; `sent` and `received` are bytes per wall second.
    """

    client: str
    phase: str = "-"
    phases: tuple[tuple[float, str], ...] = ()  # Unix time and phase, the oldest first
    epoch: float | None = None
    epochs: float | None = None
    speed: float | None = None
    epoch_seconds: float | None = None
    target_seconds: float | None = None
    epoch_wall_seconds: float | None = None
    cpu_use: float | None = None
    throttled: float | None = None
    memory: float | None = None
    memory_limit: float | None = None
    sent: float | None = None
    received: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    watts: float | None = None
    joules: float | None = None

    @property
    def error(self) -> float | None:
        """How far the epoch was from its target: 0.05 is five percent too slow."""
        if self.epoch_seconds is None or not self.target_seconds:
            return None
        return self.epoch_seconds / self.target_seconds - 1

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
        if self.phase != "running" or self.round_seconds is None:
            return None
        return (1 - self.progress) * self.rounds * self.round_seconds


@dataclass(frozen=True)
class Holding:
    """A client for which the others wait, and since how many wall seconds each does."""

    client: Device
    waiting: Mapping[str, float | None]


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment; `time` is Prometheus', in Unix seconds."""

    time: float
    runs: tuple[str, ...]
    run: RunState | None
    devices: tuple[Device, ...]
    alerts: tuple[str, ...]

    @property
    def holding(self) -> Holding | None:
        """Who holds the round back; None while nobody waits for anybody."""
        here = [device for device in self.devices if device.phase not in ("gone", "-")]
        busy = [device for device in here if device.phase != "waiting"]
        waiting = [device for device in here if device.phase == "waiting"]
        if not self.run or self.run.phase != "running" or not busy or not waiting:
            return None
        since = {device.client: device.in_phase_since for device in waiting}
        return Holding(
            max(busy, key=_left),
            {name: None if at is None else self.time - at for name, at in since.items()},
        )


def ask(prometheus: Prometheus, run: str | None = None, clients: Iterable[str] = ()) -> Snapshot:
    """The present state, in four requests; `clients` are shown even if nobody scraped them yet.

    Raises:
        HostError: Prometheus does not answer.
    """
    return snapshot(
        prometheus.query(_FACTS),
        prometheus.query(_ALL_RATES),
        prometheus.query_range("fedbench_client_phase == 1", WINDOW_SECONDS, STEP_SECONDS),
        prometheus.query_range(_CURVES, _CURVE_SECONDS, _CURVE_STEP_SECONDS),
        run,
        clients,
    )


def snapshot(
    facts: Sequence[Sample],
    rates: Sequence[Sample],
    phases: Sequence[Series],
    curves: Sequence[Series],
    run: str | None = None,
    clients: Iterable[str] = (),
) -> Snapshot:
    """The state that these answers describe, of `run` or the one that Prometheus has."""
    runs = tuple(sorted({s.labels["run"] for s in _named(facts, "run_phase")}))
    chosen = run or next(iter(runs), None)
    facts = [sample for sample in facts if sample.labels.get("run", chosen) == chosen]
    state = _run(chosen, facts, curves) if chosen in runs and chosen else None
    past = _phases(phases)
    values = _values(facts, rates)
    names = sorted({*clients, *past, *values})
    return Snapshot(
        time=max((series.points[-1][0] for series in phases), default=0.0),
        runs=runs,
        run=state,
        devices=tuple(
            _device(name, values.get(name, {}), past.get(name, ()), state) for name in names
        ),
        alerts=tuple(sorted(_alerts(facts))),
    )


def _named(facts: Iterable[Sample], name: str) -> list[Sample]:
    return [sample for sample in facts if sample.labels["__name__"] == f"fedbench_{name}"]


def _run(run: str, facts: Sequence[Sample], curves: Sequence[Series]) -> RunState:
    def value(name: str) -> float | None:
        return next((sample.value for sample in _named(facts, name)), None)

    info = next((sample.labels for sample in _named(facts, "run_info")), {})
    phases = [s.labels["phase"] for s in _named(facts, "run_phase") if s.value == 1]
    return RunState(
        run=run,
        **{name: info.get(name, "") for name in ("experiment", "profile", "model")},
        phase=next(iter(phases), "-"),
        round=int(value("round") or 0),
        rounds=int(value("rounds") or 0),
        round_seconds=value("round_last_seconds"),
        dilation=value("dilation") or 1.0,
        accuracies=_curve(curves, "server_accuracy", run, value("server_accuracy")),
        losses=_curve(curves, "server_loss", run, value("server_loss")),
    )


def _curve(curves: Iterable[Series], name: str, run: str, now: float | None) -> tuple[float, ...]:
    """Values as they changed: Prometheus has the same one again until the next round is over."""
    labels = {"__name__": f"fedbench_{name}", "run": run}.items()
    found = [series.points for series in curves if labels <= series.labels.items()]
    values = [value for points in found for _, value in points]
    values += [] if now is None else [now]
    return tuple(value for value, _ in groupby(values))


def _phases(phases: Iterable[Series]) -> dict[str, tuple[tuple[float, str], ...]]:
    past: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for series in phases:
        if client := series.labels.get("client"):
            past[client] += [(time, series.labels["phase"]) for time, _ in series.points]
    return {client: tuple(sorted(points)) for client, points in past.items()}


def _values(facts: Iterable[Sample], rates: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """By client and name; a figure that has one value per phase or state, with that appended."""
    values: dict[str, dict[str, float]] = defaultdict(dict)
    for sample in (*facts, *rates):
        client, labels = sample.labels.get("client"), sample.labels
        if not client or labels.get("__name__") == "ALERTS" or math.isnan(sample.value):
            continue
        name = labels.get("figure") or labels["__name__"].removeprefix("fedbench_")
        which = labels.get("phase") or labels.get("state")
        values[client][f"{name}.{which}" if which else name] = sample.value
    return dict(values)


def _device(
    client: str,
    values: Mapping[str, float],
    past: tuple[tuple[float, str], ...],
    run: RunState | None,
) -> Device:
    phase = _phase(values, past)
    wall = values.get("local_epoch_last_seconds")
    speed = values.get("samples_per_second")
    dilation = values.get("client_dilation", run.dilation if run else 1.0)
    joules = [value for name, value in values.items() if name.startswith("energy_joules_total.")]
    state = "busy" if phase in ("training", "evaluating") else "idle"
    return Device(
        client,
        phase,
        past,
        epoch=values.get("local_epoch"),
        epochs=values.get("local_epochs"),
        speed=None if speed is None else speed * dilation,
        epoch_seconds=None if wall is None else wall / dilation,
        target_seconds=values.get("target_epoch_seconds"),
        epoch_wall_seconds=wall,
        loss=values.get("local_loss"),
        accuracy=values.get("local_accuracy"),
        memory=values.get("memory_bytes"),
        memory_limit=values.get("memory_limit_bytes"),
        watts=values.get(f"device_watts.{state}"),
        joules=sum(joules) if joules else None,
        cpu_use=values.get("cpu_use"),
        throttled=values.get("throttled"),
        sent=values.get("sent"),
        received=values.get("received"),
    )


def _phase(values: Mapping[str, float], past: Sequence[tuple[float, str]]) -> str:
    """A client that Prometheus scrapes no more is gone; one that it never did has no phase yet."""
    current = [name for name, value in values.items() if name.startswith("client_phase.") and value]
    if current:
        return current[0].removeprefix("client_phase.")
    return "gone" if past else "-"


def _alerts(facts: Iterable[Sample]) -> Iterable[str]:
    for sample in facts:
        labels = sample.labels
        if labels["__name__"] == "ALERTS" and labels["alertstate"] == "firing":
            whom = labels.get("client")
            yield labels["alertname"] + (f" ({whom})" if whom else "")


def _left(device: Device) -> tuple[int, float]:
    """What is left to a busy device in this round: phases, and wall seconds of training."""
    order = ("sending", "evaluating", "training", "receiving").index(device.phase)
    if device.epoch is None or device.epochs is None:
        return order, 0.0
    return order, (device.epochs - device.epoch + 1) * (device.epoch_wall_seconds or 0.0)
