"""Asks a Prometheus for the state of the federation that it scrapes."""

from __future__ import annotations

from collections.abc import Iterable

from fedbench.errors import HostError, RunError
from fedbench.host.watch.prometheus import Prometheus
from fedbench.host.watch.top.snapshot import (
    METRICS,
    PHASE_METRIC,
    STEP_SECONDS,
    WINDOW_SECONDS,
    snapshot,
)
from fedbench.host.watch.top.state import Snapshot

_FACTS = f'{{__name__=~"{"|".join(("ALERTS", *METRICS))}"}}'
_PHASES = f"{PHASE_METRIC} == 1"
_CURVES = '{__name__=~"fedbench_server_(accuracy|loss)"}'
_CURVE_SECONDS, _CURVE_STEP_SECONDS = 3600, 10


def ask(prometheus: Prometheus, run: str | None = None, clients: Iterable[str] = ()) -> Snapshot:
    """Return the present state, in four requests; `clients` are in it even if nobody scraped them.

    Raises:
        HostError: Prometheus does not answer.
    """
    return snapshot(
        prometheus.query(_FACTS),
        prometheus.query_range(_PHASES, WINDOW_SECONDS, STEP_SECONDS),
        prometheus.query_range(_CURVES, _CURVE_SECONDS, _CURVE_STEP_SECONDS),
        prometheus.recording_rules(),
        run,
        clients,
    )


def look(prometheus: Prometheus, run: str | None = None) -> Snapshot:
    """Return the present state of a federation that is there.

    Raises:
        HostError: Prometheus does not answer, or scrapes no federation.
        RunError: `run` is not the one that its server has.
    """
    state = ask(prometheus, run)
    if not state.devices and not state.runs:
        raise HostError(
            f"{prometheus.url} has no figures of a federation",
            "is one up there? `fedbench status` says where its Prometheus is",
        )
    if run and run not in state.runs:
        known = ", ".join(state.runs) or "no run"
        raise RunError(f"{prometheus.url} has no run {run} now", f"it has {known}")
    return state
