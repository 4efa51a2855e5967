"""A dashboard's frame: its variables, its links, its rows."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, QueryVariable, Row
from grafana_foundation_sdk.models.common import TimeZoneBrowser
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableRefresh,
    VariableSort,
)

from boards.panels import SOURCE, Panel

_CLIENTS = "label_values(fedbench_client_connected, client)"  # whatever their node


def board(title: str, name: str, *variables: str) -> Dashboard:
    """Start a dashboard with these variables: run, client, or one client."""
    links = DashboardLink("Dashboards").type(DashboardLinkType.DASHBOARDS).tags(["fedbench"])
    dashboard = (
        Dashboard(title)
        .uid(f"fedbench-{name}")
        .tags(["fedbench"])
        .readonly()
        .timezone(TimeZoneBrowser)
        .time("now-30m", "now")
        .refresh("5s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(links.keep_time(True))  # without variables: all clients are none of Device's
    )
    choices = {
        "run": some("run", "Run", "label_values(fedbench_round, run)"),
        "client": some("client", "Client", _CLIENTS),
        "one client": variable("client", "Client", _CLIENTS),
    }
    for chosen in variables:
        dashboard.with_variable(choices[chosen])
    return dashboard


def row(dashboard: Dashboard, title: str, panels: Iterable[Panel]) -> None:
    """Add an open row."""
    dashboard.with_row(Row(title))
    for panel in panels:
        dashboard.with_panel(panel)


def collapsed_row(dashboard: Dashboard, title: str, panels: Iterable[Panel]) -> None:
    """Add a row that one opens."""
    closed = Row(title)
    for panel in panels:
        closed.with_panel(panel)
    dashboard.with_row(closed)


def variable(name: str, label: str, values: str) -> QueryVariable:
    """Let the viewer choose one of `values`; runs begin with their date: the newest is first."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_DESC)
    )


def some(name: str, label: str, values: str) -> QueryVariable:
    """Let the viewer choose some or all of `values`."""
    return variable(name, label, values).multi(True).include_all(True)
