"""A dashboard's frame: its variables, its links, its rows, the starts of runs."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.models.common import TimeZoneBrowser
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableHide,
    VariableRefresh,
    VariableSort,
)

from boards.panels import SOURCE, Panel

STARTED = "fedbench_run_start_timestamp_seconds"
# The clients of the run that live. Of a run that is over, those that it had; before its first
# batch, whoever is connected.
_TRAINED = 'max by (client) (fedbench_client_round{run="$run"})'
_HAD = 'max by (client) (last_over_time(fedbench_client_round{run="$run"}[$__range]))'
_CONNECTED = "max by (client) (fedbench_client_connected)"
_CLIENTS = f"{_TRAINED} or ({_HAD} unless on () {_TRAINED}) or ({_CONNECTED} unless on () {_HAD})"
_SLOWEST = f'max by (client) (fedbench_local_epoch_last_seconds{{run="$run"}}) or 0 * ({_CLIENTS})'
_NAME = '/client="([^"]+)"/'


def board(title: str, name: str, *variables: str, since: str = "now-5m") -> Dashboard:
    """Start a dashboard with these variables: run, runs, clients or client."""
    dashboard = (
        Dashboard(title)
        .uid(f"fedbench-{name}")
        .tags(["fedbench"])
        .readonly()
        .timezone(TimeZoneBrowser)
        .time(since, "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .annotation(run_starts())
        .link(
            DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["fedbench"])
            .keep_time(True)
            .include_vars(True)
        )
    )
    if "run" in variables:
        whole = "/d/${__dashboard.uid}?var-run=${run}&from=${started}&to=now"
        dashboard.link(
            DashboardLink("Whole run").type(DashboardLinkType.LINK).icon("clock").url(whole)
        )
        dashboard.with_variable(run()).with_variable(started())
    if "runs" in variables:
        dashboard.with_variable(runs())
    if "clients" in variables:
        dashboard.with_variable(clients(f"query_result({_CLIENTS})").multi(True).include_all(True))
    if "client" in variables:
        dashboard.with_variable(clients(f"query_result(sort_desc({_SLOWEST}))"))
    return dashboard


def row(dashboard: Dashboard, title: str, panels: Iterable[Panel]) -> None:
    """Add an open row."""
    dashboard.with_row(Row(title))
    for panel in panels:
        dashboard.with_panel(panel)


def collapsed_row(dashboard: Dashboard, title: str, panels: Iterable[Panel]) -> None:
    """Add a row that one opens: its queries are not asked before."""
    closed = Row(title)
    for panel in panels:
        closed.with_panel(panel)
    dashboard.with_row(closed)


def run() -> QueryVariable:
    """Let the viewer choose a run: the newest at first, for they begin with their date."""
    chosen = variable("run", "Run", f"label_values({STARTED}, run)")
    return chosen.sort(VariableSort.ALPHABETICAL_DESC)


def runs() -> QueryVariable:
    """Let the viewer choose some of the runs, or all."""
    chosen = variable("runs", "Runs", f"label_values({STARTED}, run)")
    return chosen.sort(VariableSort.ALPHABETICAL_DESC).multi(True).include_all(True)


def clients(values: str) -> QueryVariable:
    """Let the viewer choose among the clients of the run, in the order of `values`."""
    return variable("client", "Client", values).regex(_NAME).sort(VariableSort.DISABLED)


def started() -> QueryVariable:
    """Know when the run started, in milliseconds since 1970, for a link."""
    since = f'last_over_time({STARTED}{{run="$run"}}[$__range]) * 1000'
    hidden = variable("started", "Started", f"query_result({since})")
    return hidden.regex(r"/ ([0-9]+)/").hide(VariableHide.HIDE_VARIABLE)


def variable(name: str, label: str, values: str) -> QueryVariable:
    """Let the viewer choose one of `values`."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def run_starts() -> AnnotationQuery:
    """Mark the start of each run, on every panel over time."""
    return (
        AnnotationQuery()
        .name("Run starts")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("blue")
        .expr(f"{STARTED} * 1000")
    )
