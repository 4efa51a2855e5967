"""A run on real devices against its emulated twin: per client and metric, the error in percent.

Rounds are paired by their number. Seconds of an emulated run are wall seconds divided by its
dilation; CPU seconds and memory are what the containers used, as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fedbench.records import ClientRound, Record, RoundRecord
from fedbench.records.clock import Dilation, WallSeconds
from fedbench.records.runs import Run

FEDERATION = "all clients"  # no client can be named so


class Comparison(Record):
    """One metric of one client (or of `all clients`) in both runs, A real and B emulated.

    `a`, `b` and `error` are medians over the rounds that both have figures of; `error` is that of
    B against A in percent, round by round, `spread` its lowest and highest. Neither is there where
    a figure of A is zero.
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
    """A figure of a round; `emulated` where it is wall time, which a dilation stretches."""

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

_Figures = dict[int, float]  # by round


@dataclass(frozen=True)
class Side:
    """What one run has of each client: its device, and figures by metric and round."""

    devices: dict[str, str]
    figures: dict[str, dict[str, _Figures]]

    @classmethod
    def of(cls, run: Run) -> Side:
        """A run's complete rounds, its wall seconds as emulated ones."""
        rounds, dilation = run.rounds(), run.summary().dilation
        devices = {c.client: c.device for record in rounds for c in record.clients}
        figures = {name: _of_client(name, rounds, dilation) for name in devices}
        durations: dict[int, float] = {
            r.round: dilation.emulated(r.duration_seconds) for r in rounds
        }
        accuracies = {r.round: r.server_accuracy for r in rounds if r.server_accuracy is not None}
        figures[FEDERATION] = {"round s": durations, "server accuracy": accuracies}
        return cls(devices, figures)


def compare(a: Run, b: Run) -> Twins:
    """Sets the emulated run B against the real run A."""
    real, twin = Side.of(a), Side.of(b)
    pairs = pair(real.devices, twin.devices)
    compared, unpaired = [], list(_differences(a, b))
    for name, other in {**pairs, FEDERATION: FEDERATION}.items():
        ours, theirs = real.figures[name], twin.figures[other]
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
    """Clients of A -> clients of B, both given as name -> device: by name, else by device."""
    pairs = {name: name for name in sorted(a) if name in b}
    left = [name for name in sorted(b) if name not in pairs]
    for name in (name for name in sorted(a) if name not in pairs):
        if twin := next((other for other in left if b[other] == a[name]), None):
            pairs[name] = twin
            left.remove(twin)
    return pairs


def table(twins: Twins) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Header and rows of the comparison."""
    header = ("client", "device", "metric", "A", "B", "error %", "spread %", "rounds")
    return header, [_row(one) for one in twins.comparisons]


def _of_client(
    name: str, rounds: Sequence[RoundRecord], dilation: Dilation
) -> dict[str, dict[int, float]]:
    own = {r.round: c for r in rounds for c in r.clients if c.client == name}
    return {metric.name: dict(_figures(metric, own, dilation)) for metric in METRICS}


def _figures(
    metric: ComparedMetric, own: Mapping[int, ClientRound], dilation: Dilation
) -> Iterator[tuple[int, float]]:
    for number, client in own.items():
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


def _only(ours: _Figures, theirs: _Figures) -> str:
    if ours and theirs:
        return "no round in common"
    return "only in A" if ours else "only in B"


def _differences(a: Run, b: Run) -> Iterator[str]:
    """Twins run the same experiment; where they do not, the figures are of different things."""
    ours, theirs = (run.experiment().model_dump(mode="json") for run in (a, b))
    for key in sorted(ours.keys() - {"name", "description"}):
        if ours[key] != theirs[key]:
            yield f"experiment: {key}: {ours[key]} in A, {theirs[key]} in B"


def _row(one: Comparison) -> Sequence[str]:
    low, high = one.spread or (0.0, 0.0)
    return (
        one.client,
        one.device,
        one.metric,
        f"{one.a:.4g}",
        f"{one.b:.4g}",
        "-" if one.error is None else f"{one.error:+.1f}",
        "-" if one.spread is None else f"{low:+.1f} to {high:+.1f}",
        str(one.rounds),
    )
