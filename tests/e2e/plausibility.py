"""What cannot be true of what Prometheus has of a run: counters that fall, power beyond the load.

Each check returns what is wrong, in words, and nothing where all is well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import requests

from fedbench.host.watch.prometheus import Sample, Series
from fedbench.records import ClientRound, RoundRecord, Summary, by_client
from fedbench.telemetry.metrics import CLIENT, CONTAINER, METRICS, DeclaredMetric

# Ratios that are none of a whole: factors, and errors to either side.
NO_SHARES = {
    "fedbench_client_dilation",
    "fedbench_dilation",
    "fedbench_speed_error_ratio",
    "fedbench_emulation_error_ratio",
}
SHARES = {metric.name for metric in METRICS.values() if metric.unit == "ratio"} - NO_SHARES
# The slowness of a client, which is recorded as well, is a factor.
RECORDED_SHARES = {f"client:fedbench_{of}:ratio" for of in ("cpu_use", "throttled", "memory_use")}
ONLY_GROW = tuple(metric for metric in METRICS.values() if metric.kind != "gauge")
FASTEST = 1.5  # times the device's speed
_HISTOGRAM = ("count", "sum", "bucket")
_WATTS_TOLERANCE = 0.01
_MEAN_TOLERANCE = 0.001
# A reply cannot time itself: an evaluation's upload is in no record. It is a few numbers, which may
# wait for their device's next turn: a period of the CPU quota.
_UNTOLD_SECONDS = 0.1

Limits = Mapping[str, tuple[float, float]]
"""The least and the most that may be, by client."""
Rows = list[dict[str, Any]]
"""Time series as Prometheus' API has them."""


class History:
    """What Prometheus at `url` has of a run, from its start to its end."""

    def __init__(self, url: str, summary: Summary) -> None:
        self._url = url
        self.rounds = summary.rounds
        self.run = summary.run
        self.clients = set(by_client(summary.rounds))
        self.start = datetime.fromisoformat(summary.started_at).timestamp()
        self.seconds = summary.total_seconds
        self.end = self.start + self.seconds

    def at(self, time: float, expression: str) -> list[Sample]:
        """Evaluate PromQL at that time, in seconds since 1970."""
        found = self._get("query", query=expression, time=time)
        return [Sample(item["metric"], float(item["value"][1])) for item in found]

    def over(self, expression: str) -> list[Series]:
        """Evaluate PromQL in each second of the run."""
        found = self._get("query_range", query=expression, start=self.start, end=self.end, step=1)
        return [
            Series(item["metric"], [(float(time), float(value)) for time, value in item["values"]])
            for item in found
        ]

    def _get(self, path: str, **parameters: str | float) -> Rows:
        with requests.Session() as session:
            session.trust_env = False  # no proxy leads to this computer
            response = session.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=10)
        answer = response.json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])


def samples_that_grow(metric: DeclaredMetric) -> list[str]:
    """The names of the samples of a counter or a histogram, which never fall."""
    if metric.kind == "counter":
        return [metric.name]
    return [f"{metric.name}_{part}" for part in _HISTOGRAM]


def falls(history: History) -> Iterator[str]:
    """Tell which counters fell during the run, or were not there, of clients and server."""
    for metric in ONLY_GROW:
        for name in samples_that_grow(metric):
            resets = history.at(history.end, f"resets({name}[{history.seconds:.0f}s])")
            yield from fallen(name, resets)
            yield from missing(metric, name, {_whose(sample) for sample in resets}, history.clients)


def fallen(name: str, resets: Iterable[Sample]) -> Iterator[str]:
    """Tell which series began anew, of the times that each did."""
    for sample in resets:
        if sample.value:
            yield f"{name} fell {sample.value:g} times: {sample.labels}"


def missing(metric: DeclaredMetric, name: str, whose: set[str], clients: set[str]) -> Iterator[str]:
    """Tell of whom there is no such sample, though there should be; the server's name is empty."""
    wanted = clients if metric in CLIENT else clients | {""} if metric in CONTAINER else {""}
    if lacking := wanted - whose:
        yield f"{name} is missing of {sorted(lacking)}"


def power(history: History) -> Iterator[str]:
    """Tell which client drew less than idle or more than its load, by its device's profile."""
    watts = history.over("fedbench_device_watts")
    idle, busy = (_of_state(watts, state) for state in ("idle", "busy"))
    limits = {
        client: (
            min(idle[client]) * (1 - _WATTS_TOLERANCE),
            max(busy[client]) * (1 + _WATTS_TOLERANCE),
        )
        for client in idle
    }
    yield from outside("client:fedbench_power:watts", history, limits)


def speeds(history: History) -> Iterator[str]:
    """Tell which client said that it was much faster than its device, wall and emulated."""
    of_run = f'{{run="{history.run}"}}'
    targets = _by_client(history.over(f"fedbench_target_samples_per_second{of_run}"))
    dilations = _by_client(history.over("fedbench_client_dilation"))
    emulated = {client: (0.0, FASTEST * max(target)) for client, target in targets.items()}
    wall = {client: (0.0, most / min(dilations[client])) for client, (_, most) in emulated.items()}
    yield from outside(f"fedbench_samples_per_second{of_run}", history, wall)
    yield from outside(f"fedbench_emulated_samples_per_second{of_run}", history, emulated)


def shares(history: History) -> Iterator[str]:
    """Tell which shares were less than nothing, or more than all."""
    for name in sorted(SHARES | RECORDED_SHARES):
        for series in history.over(name):
            yield from beyond(name, series, 0.0, 1.0)


def means(history: History) -> Iterator[str]:
    """Tell which mean of a histogram is more than the most that the run's records have."""
    for metric in (metric for metric in ONLY_GROW if metric.kind == "histogram"):
        sums, counts = (growth(history, f"{metric.name}_{part}") for part in ("sum", "count"))
        for labels, count in counts.items():
            most = longest(metric.name, dict(labels), history.rounds)
            if count and sums[labels] / count > most * (1 + _MEAN_TOLERANCE):
                mean = sums[labels] / count
                yield f"{metric.name}: {mean:.3f} s at the mean, {most:.3f} at most: {labels}"


def longest(histogram: str, labels: Mapping[str, str], rounds: list[RoundRecord]) -> float:
    """Return the most seconds that a run's records have of what such a histogram counts."""
    if histogram == "fedbench_round_seconds":
        return max(record.duration_seconds for record in rounds)
    mine = by_client(rounds)[labels["client"]]
    if histogram == "fedbench_local_epoch_seconds":
        return max(seconds for client in mine for seconds in client.epoch_seconds)
    assert histogram == "fedbench_transfer_seconds", f"{histogram}: say what it counts"
    told = max(_transfer_seconds(client, labels["direction"]) for client in mine)
    return max(told, _UNTOLD_SECONDS) if labels["direction"] == "sent" else told


def growth(history: History, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Return by how much each series of a counter grew during the run, by its labels."""
    before, after = (
        {_key(sample): sample.value for sample in history.at(time, name)}
        for time in (history.start, history.end)
    )
    return {key: value - before.get(key, 0.0) for key, value in after.items()}


def outside(expression: str, history: History, limits: Limits) -> Iterator[str]:
    """Tell when a client's value is outside its limits, and which client has none at all."""
    found = history.over(expression)
    for series in found:
        if mine := limits.get(series.labels["client"]):
            yield from beyond(expression, series, *mine)
    if lacking := limits.keys() - _by_client(found).keys():
        yield f"{expression} is missing of {sorted(lacking)}"
    if not limits:
        yield f"{expression}: nothing to compare it with"


def beyond(name: str, series: Series, least: float, most: float) -> Iterator[str]:
    """Tell of values that are not within limits: how many, and the worst on either side."""
    values = [value for _, value in series.points]
    wrong = [value for value in values if not least <= value <= most]
    if wrong:
        yield (
            f"{name}: {len(wrong)} of {len(values)} values not within {least:g} to {most:g}, "
            f"from {min(wrong):g} to {max(wrong):g}: {series.labels}"
        )


def _of_state(watts: Iterable[Series], state: str) -> dict[str, list[float]]:
    return _by_client(series for series in watts if series.labels["state"] == state)


def _by_client(found: Iterable[Series]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for series in found:
        mine = values.setdefault(series.labels["client"], [])
        mine += [value for _, value in series.points]
    return values


def _transfer_seconds(client: ClientRound, direction: str) -> float:
    seconds = client.upload_seconds if direction == "sent" else client.download_seconds
    return seconds or 0.0


def _whose(sample: Sample) -> str:
    """The client that is scraped, empty for the server: which counts some of its clients, too."""
    return sample.labels["client"] if sample.labels["job"] == "clients" else ""


def _key(sample: Sample) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, v) for k, v in sample.labels.items() if k != "__name__"))
