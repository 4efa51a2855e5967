"""Queries in PromQL, of the run and the clients that the viewer chose.

A dashboard shows one run; only `compare.py` has several. Rates look back 15 s, as the recording
rules do: several scrapes, less than most epochs.
"""

from __future__ import annotations


def of_run(metric: str) -> str:
    """Query the server's `metric` of the chosen run."""
    return f'max({metric}{{run="$run"}})'


def by_client(metric: str, with_run: bool = False) -> str:
    """Query one series per client, also over a restart; `with_run` of the chosen run alone."""
    run = 'run="$run", ' if with_run else ""
    return f'max by (client) ({metric}{{{run}client=~"$client"}})'


def of_clients(metric: str) -> str:
    """Query the sum over the clients of the chosen run, those that left included."""
    return f'sum({metric}{{run="$run", client=~"$client"}})'


def rate(counter: str) -> str:
    """Query the growth per second of each chosen client's `counter`."""
    return f'max by (client) (rate({counter}{{client=~"$client"}}[15s]))'


def by(label: str, metric: str, aggregate: str = "max") -> str:
    """Query `metric` of the chosen clients, one series for each value of `label`."""
    return f'{aggregate} by ({label}) ({metric}{{client=~"$client"}})'


def mean(histogram: str, label: str) -> str:
    """Query the mean of all that a client's `histogram` has observed, by `label`.

    A quantile would be made up: all may have fallen into one bucket.
    """
    total, count = (by(label, f"{histogram}_{part}", "sum") for part in ("sum", "count"))
    return f"{total} / ({count} > 0)"


def last_of_each_run(metric: str, aggregate: str = "max") -> str:
    """Query the last value that each run of the viewer's choice had in the time range.

    Of a metric of clients, it adds up the last value of each, those that left included.
    """
    return f'{aggregate} by (run) (last_over_time({metric}{{run=~"$runs"}}[$__range]))'


def at_each(label: str, place: str, by_run: str) -> str:
    """Query the last value of `by_run` at each value of the run's metric `place`, as a `label`.

    Prometheus has values over wall time alone. `count_values` makes labels of the values of
    `place`; the product has them too.
    """
    places = f'count_values by (run) ("{label}", {place}{{run=~"$runs"}})'
    product = f"({by_run}) * on (run) group_right () {places}"
    return f"last_over_time(({product})[$__range:2s])"
