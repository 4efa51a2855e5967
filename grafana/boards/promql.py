"""Queries in PromQL, of the run and the clients that the viewer chose."""

from __future__ import annotations


def of_run(metric: str) -> str:
    """Query the server's `metric` of the chosen runs, one of which is in progress at a time."""
    return f'max({metric}{{run=~"$run"}})'


def by_client(metric: str, with_run: bool = False) -> str:
    """Query one series per client, also over a restart or over several runs."""
    run = 'run=~"$run", ' if with_run else ""
    return f'max by (client) ({metric}{{{run}client=~"$client"}})'


def rate(counter: str) -> str:
    """Query the growth per second of each chosen client's `counter`."""
    return f'max by (client) (rate({counter}{{client=~"$client"}}[$__rate_interval]))'


def by(label: str, metric: str, aggregate: str = "max") -> str:
    """Query `metric` of the chosen clients, one series for each value of `label`."""
    return f'{aggregate} by ({label}) ({metric}{{client=~"$client"}})'


def of_each_run(metric: str, aggregate: str = "max") -> str:
    """Query `metric` of the chosen runs, one series for each."""
    return f'{aggregate} by (run) ({metric}{{run=~"$run"}})'


def last(by_run: str) -> str:
    """Query the last value of each series of `by_run` in the time range, also of finished runs.

    Of a metric of clients, `by_run` adds them up: those that left before the last round would come
    back otherwise.
    """
    return f"last_over_time({by_run}[$__range:])"


def last_of_each_run(metric: str, aggregate: str = "max") -> str:
    """Query the last value that each chosen run had."""
    return last(of_each_run(metric, aggregate))
