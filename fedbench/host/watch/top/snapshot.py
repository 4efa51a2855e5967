"""The state of a federation, made of Prometheus' answers alone. Pure.

No file of the computer that it runs on is read: the federation may be on another one. Rates and
ratios are those that recording.yml records, which the dashboards show too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from fedbench.host.watch.prometheus import Sample, Series
from fedbench.host.watch.top.state import Alert, DeviceState, GpuState, RunState, Snapshot, Traffic
from fedbench.records.clock import Dilation

WINDOW_SECONDS = 240  # of the timeline; a device that left is shown for as long
STEP_SECONDS = 2

# The fields of a device and the metric of each; of one that has a value per state or direction,
# that one's after a point. What adds up is the run's: a counter goes on from one run to the next.
_DEVICE = {
    "epoch": "fedbench_local_epoch",
    "epochs": "fedbench_local_epochs",
    "epoch_wall_seconds": "fedbench_local_epoch_last_seconds",
    "target_seconds": "fedbench_target_epoch_seconds",
    "slowness": "client:fedbench_slowness:ratio",
    "loss": "fedbench_local_loss",
    "accuracy": "fedbench_local_accuracy",
    "cpus": "fedbench_usable_cpus",
    "cpu_seconds": "fedbench_cpu_seconds_total",
    "cpu_use": "client:fedbench_cpu_use:ratio",
    "throttled": "client:fedbench_throttled:ratio",
    "memory": "fedbench_memory_bytes",
    "memory_peak": "fedbench_memory_peak_bytes",
    "memory_limit": "fedbench_memory_limit_bytes",
    "memory_use": "client:fedbench_memory_use:ratio",
    "memory_kills": "fedbench_out_of_memory_kills_total",
    "watts": "client:fedbench_power:watts",
    "idle_joules": "fedbench_run_energy_joules.idle",
    "busy_joules": "fedbench_run_energy_joules.busy",
}
_SENT = {
    "rate": "client:fedbench_sent_bytes:rate",
    "bytes": "fedbench_run_bytes.sent",
    "last_bytes": "fedbench_transfer_last_bytes.sent",
    "last_seconds": "fedbench_transfer_last_seconds.sent",
}
_RECEIVED = {field: metric.replace("sent", "received") for field, metric in _SENT.items()}
_GPU = {
    "use": "fedbench_gpu_use_ratio",
    "memory": "fedbench_gpu_memory_bytes",
    "memory_total": "fedbench_gpu_memory_total_bytes",
    "watts": "fedbench_gpu_power_watts",
}
PHASE_METRIC, _SPEED = "fedbench_client_phase", "fedbench_samples_per_second"
_DILATION = "fedbench_client_dilation"
_OF_A_RUN = ("run_info", "run_phase", "round", "rounds", "round_last_seconds", "server_accuracy",
             "server_loss", "dilation")  # fmt: skip
METRICS = tuple(
    sorted(
        {PHASE_METRIC, _SPEED, _DILATION, *(f"fedbench_{name}" for name in _OF_A_RUN)}
        | {
            metric.partition(".")[0]
            for fields in (_DEVICE, _SENT, _RECEIVED, _GPU)
            for metric in fields.values()
        }
    )
)
_GOING_ON = ("waiting", "running")
# NaN or infinite where training diverged; any other figure that is so is a ratio without figures.
_DIVERGING = ("fedbench_local_loss", "fedbench_server_loss")
RULES = tuple(metric for metric in METRICS if metric.startswith("client:"))


def snapshot(
    facts: Sequence[Sample],
    phases: Sequence[Series],
    curves: Sequence[Series],
    rules: Collection[str] = RULES,
    run: str | None = None,
    clients: Iterable[str] = (),
) -> Snapshot:
    """Return what these answers say of `run`, or of the newest, one that goes on first.

    `rules` are the recording rules that it evaluates itself; it may have others' series, too.
    """
    recorded = {*rules, *(sample.labels["__name__"] for sample in facts)}
    runs = tuple(sorted({s.labels["run"] for s in _named(facts, "run_phase")}))
    chosen = run or _current(facts)
    facts = [
        sample
        for sample in facts
        if sample.labels.get("run", chosen) == chosen and _is_known(sample)
    ]
    state = _run(chosen, facts, curves) if chosen in runs and chosen else None
    past = _phases(phases)
    values = _values(facts)
    profiles = {s.labels.get("client"): s.labels["device"] for s in facts if "device" in s.labels}
    names = sorted({*clients, *past, *values})
    return Snapshot(
        time=max((series.points[-1][0] for series in phases), default=0.0),
        runs=runs,
        run=state,
        devices=tuple(
            _device(name, values.get(name, {}), past.get(name, ()), state, profiles.get(name, ""))
            for name in names
        ),
        alerts=tuple(sorted(_alerts(facts), key=str)),
        missing_rules=tuple(rule for rule in RULES if rule not in recorded),
    )


def _current(facts: Iterable[Sample]) -> str | None:
    """Choose the newest run that goes on: a user's Prometheus may have several federations."""
    phases = _named(facts, "run_phase")
    going_on = {s.labels["run"] for s in phases if s.value and s.labels["phase"] in _GOING_ON}
    return max(going_on or {s.labels["run"] for s in phases}, default=None)


def _is_known(sample: Sample) -> bool:
    return math.isfinite(sample.value) or sample.labels["__name__"] in _DIVERGING


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
    """Return values as they changed: Prometheus repeats one until the next round is over."""
    labels = {"__name__": f"fedbench_{name}", "run": run}.items()
    values: list[float] = []
    for series in curves:
        if labels <= series.labels.items():
            values += [value for _, value in series.points]
    values += [] if now is None else [now]
    # By their text, because NaN, the loss of a model that diverged, is unlike itself.
    return tuple(next(same) for _, same in groupby(values, key=str))


def _phases(phases: Iterable[Series]) -> dict[str, tuple[tuple[float, str], ...]]:
    past: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for series in phases:
        if client := series.labels.get("client"):
            past[client] += [(time, series.labels["phase"]) for time, _ in series.points]
    return {client: tuple(sorted(points)) for client, points in past.items()}


def _values(facts: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """Return values by client and metric; a state or direction is appended to the metric's name."""
    values: dict[str, dict[str, float]] = defaultdict(dict)
    for sample in facts:
        client, labels = sample.labels.get("client"), sample.labels
        if not client or labels["__name__"] == "ALERTS":
            continue
        which = [labels[name] for name in ("phase", "state", "direction") if name in labels]
        values[client][".".join((labels["__name__"], *which))] = sample.value
    return dict(values)


def _device(
    client: str,
    values: Mapping[str, float],
    past: tuple[tuple[float, str], ...],
    run: RunState | None,
    profile: str,
) -> DeviceState:
    def fields(metrics: Mapping[str, str]) -> dict[str, Any]:
        return {field: values.get(metric) for field, metric in metrics.items()}

    known = fields(_DEVICE)
    wall, speed = known["epoch_wall_seconds"], values.get(_SPEED)
    dilation = Dilation(values.get(_DILATION) or (run.dilation if run else 1.0))
    return DeviceState(
        client,
        _phase(values, past),
        past,
        profile,
        speed=None if speed is None else dilation.emulated_rate(speed),
        epoch_seconds=None if wall is None else dilation.emulated(wall),
        sent=Traffic(**fields(_SENT)),
        received=Traffic(**fields(_RECEIVED)),
        gpu=GpuState(**fields(_GPU)),
        **known,
    )


def _phase(values: Mapping[str, float], past: Sequence[tuple[float, str]]) -> str:
    """Return the phase: gone if Prometheus scrapes it no more, a dash if it never did."""
    current = [
        name for name, value in values.items() if name.startswith(f"{PHASE_METRIC}.") and value
    ]
    if current:
        return current[0].removeprefix(f"{PHASE_METRIC}.")
    return "gone" if past else "-"


def _alerts(facts: Iterable[Sample]) -> Iterable[Alert]:
    for sample in facts:
        labels = sample.labels
        if labels["__name__"] == "ALERTS" and labels["alertstate"] == "firing":
            yield Alert(labels["alertname"], labels.get("client", ""))
