"""A run on real devices against its emulated twin: per client and metric, the error in percent.

Rounds are paired by their number. Seconds of an emulated run are wall seconds divided by its
dilation; CPU seconds and memory are what the containers used, as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fedbench.host.report.tables.text_table import Table
from fedbench.records import ClientRound, Record, RoundRecord
from fedbench.records.clock import Dilation, WallSeconds
from fedbench.records.runs import Run

FEDERATION = "all clients"  # no client can be named so


class Comparison(Record):
    """One metric of one client (or of `all clients`) in both runs, A real and B emulated.

    `a`, `b` and `error` are medians over the rounds that both have values of. `error` is how far
    B is from A in percent, round by round, and `spread` its lowest and highest. Both are None
    where a value of A is zero.
    """

    client: str
    device: str
    metric: str
    a: float
    b: float
    error: float | None
    spread: tuple[float, float] | None
    rounds: int


class Twins(Record):
    """Two runs side by side; `unpaired` says what only one of them has."""

    a: str
    b: str
    comparisons: list[Comparison]
    unpaired: list[str]


@dataclass(frozen=True)
class ComparedMetric:
    """A value of a client's round; `emulated` where it is wall time, which a dilation stretches."""

    name: str
    of: Callable[[ClientRound], float | None]
    emulated: bool = False


METRICS = (
    ComparedMetric(
        "local epoch s", lambda c: median(c.epoch_seconds) if c.epoch_seconds else None, True
    ),
    ComparedMetric("evaluation s", lambda c: c.evaluate_seconds, True),
    ComparedMetric("download s", lambda c: c.download_seconds, True),
    ComparedMetric("upload s", lambda c: c.upload_seconds, True),
    ComparedMetric("CPU s", lambda c: c.cpu_seconds),
    ComparedMetric("peak MiB", lambda c: c.peak_memory_bytes and c.peak_memory_bytes / 2**20),
    ComparedMetric("local accuracy", lambda c: c.local_accuracy),
)

_Values = dict[int, float]  # by round


@dataclass(frozen=True)
class Side:
    """What one run has of each client: its device, and values by metric and round."""

    devices: dict[str, str]
    values: dict[str, dict[str, _Values]]

    @classmethod
    def of(cls, run: Run) -> Side:
        """Read a run's complete rounds; turn its wall seconds into emulated ones."""
        rounds, dilation = run.rounds(), run.summary().dilation
        devices = {c.client: c.device for record in rounds for c in record.clients}
        values = {name: _of_client(name, rounds, dilation) for name in devices}
        durations: dict[int, float] = {
            r.round: dilation.emulated(r.duration_seconds) for r in rounds
        }
        accuracies = {r.round: r.server_accuracy for r in rounds if r.server_accuracy is not None}
        values[FEDERATION] = {"round s": durations, "server accuracy": accuracies}
        return cls(devices, values)


def compare(a: Run, b: Run) -> Twins:
    """Set the emulated run B against the real run A."""
    real, twin = Side.of(a), Side.of(b)
    pairs = pair(real.devices, twin.devices)
    compared, unpaired = [], list(_differences(a, b))
    for name, other in {**pairs, FEDERATION: FEDERATION}.items():
        ours, theirs = real.values[name], twin.values[other]
        device = real.devices.get(name, "-")
        for metric in ours:
            if common := sorted(ours[metric].keys() & theirs[metric].keys()):
                values = [(ours[metric][number], theirs[metric][number]) for number in common]
                compared.append(_comparison(name, device, metric, values))
            elif ours[metric] or theirs[metric]:
                unpaired.append(f"{name}: {metric}: {_only(ours[metric], theirs[metric])}")
    unpaired += [f"client {name}: only in A" for name in sorted(real.devices.keys() - pairs.keys())]
    extra = sorted(twin.devices.keys() - set(pairs.values()))
    unpaired += [f"client {name}: only in B" for name in extra]
    return Twins(a=a.id, b=b.id, comparisons=compared, unpaired=unpaired)


def pair(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, str]:
    """Pair clients of A with clients of B, each name -> device: by name, else by device."""
    pairs = {name: name for name in sorted(a) if name in b}
    left = [name for name in sorted(b) if name not in pairs]
    for name in (name for name in sorted(a) if name not in pairs):
        if twin := next((other for other in left if b[other] == a[name]), None):
            pairs[name] = twin
            left.remove(twin)
    return pairs


def table(twins: Twins) -> Table:
    """Make the table of the comparison, a row for each client and metric."""
    header = ("client", "device", "metric", "A", "B", "error %", "spread %", "rounds")
    return header, [_row(comparison) for comparison in twins.comparisons]


def _of_client(
    name: str, rounds: Sequence[RoundRecord], dilation: Dilation
) -> dict[str, dict[int, float]]:
    by_round = {r.round: c for r in rounds for c in r.clients if c.client == name}
    return {metric.name: dict(_values(metric, by_round, dilation)) for metric in METRICS}


def _values(
    metric: ComparedMetric, rounds: Mapping[int, ClientRound], dilation: Dilation
) -> Iterator[tuple[int, float]]:
    for number, client in rounds.items():
        value = metric.of(client)
        if value is not None:
            yield number, dilation.emulated(WallSeconds(value)) if metric.emulated else value


def _comparison(
    client: str, device: str, metric: str, values: Sequence[tuple[float, float]]
) -> Comparison:
    ours, theirs = zip(*values, strict=True)
    errors = [100 * (b / a - 1) for a, b in values] if all(ours) else []
    return Comparison(
        client=client,
        device=device,
        metric=metric,
        a=median(ours),
        b=median(theirs),
        error=median(errors) if errors else None,
        spread=(min(errors), max(errors)) if errors else None,
        rounds=len(values),
    )


def _only(ours: _Values, theirs: _Values) -> str:
    if ours and theirs:
        return "no round in common"
    return "only in A" if ours else "only in B"


def _differences(a: Run, b: Run) -> Iterator[str]:
    """List where the experiments differ: then the two runs are not twins."""
    ours, theirs = (run.experiment().model_dump(mode="json") for run in (a, b))
    for key in sorted(ours.keys() - {"name", "description"}):
        if ours[key] != theirs[key]:
            yield f"experiment: {key}: {ours[key]} in A, {theirs[key]} in B"


def _row(comparison: Comparison) -> Sequence[str]:
    low, high = comparison.spread or (0.0, 0.0)
    return (
        comparison.client,
        comparison.device,
        comparison.metric,
        f"{comparison.a:.4g}",
        f"{comparison.b:.4g}",
        "-" if comparison.error is None else f"{comparison.error:+.1f}",
        "-" if comparison.spread is None else f"{low:+.1f} to {high:+.1f}",
        str(comparison.rounds),
    )
