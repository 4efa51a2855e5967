"""The kinds of panels that the dashboards are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders.dashboard import DashboardLink, ThresholdsConfig
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
)

Panel: TypeAlias = (
    stat.Panel | timeseries.Panel | statetimeline.Panel | bargauge.Panel | table.Panel
)
Steps: TypeAlias = Mapping[float, str]
"""Colours by the value from which each holds."""

# What a container cannot know: the quota that clients of one computer have in common.
SHARED_USE = "Clients of one computer each count against all of it: of k at work, each has 1/k."
SHARED_THROTTLING = "Clients of one computer show 0: the quota is their common one."
SOURCE = DataSourceRef("prometheus", "fedbench-prometheus")  # provisioning/datasources
REF_IDS = "ABCDEF"
"""Ids of a panel's queries, in order."""


P = TypeVar("P", bound=Panel)


def leading(panel: P, legends: Collection[str]) -> P:
    """Let a click on a client open its Device; `legends` are those of the queries, in order.

    The series of a query without clients, as the server's, lead nowhere.
    """
    url = "/d/fedbench-device?${__url_time_range}&var-client=${__field.labels.client}"
    link = DashboardLink("Everything about ${__field.labels.client}").url(url)
    link.type(DashboardLinkType.LINK)
    of_clients = ["{{client}}" in legend for legend in legends]
    if all(of_clients):
        return panel.data_links([link])
    for ref_id, leads in zip(REF_IDS, of_clients, strict=False):
        if leads:
            panel.override_by_query(ref_id, [DynamicConfigValue("links", [link.build()])])
    return panel


def query(expression: str, legend: str, ref_id: str = "A") -> prometheus.Dataquery:
    """Ask for `expression` over the dashboard's time range; `ref_id` is unique in its panel."""
    target = prometheus.Dataquery().datasource(SOURCE).ref_id(ref_id)
    return target.expr(expression).legend_format(legend).range()


def now(expression: str, legend: str) -> prometheus.Dataquery:
    """Ask for `expression` at the end of the time range only."""
    target = prometheus.Dataquery().datasource(SOURCE).ref_id("A")
    return target.expr(expression).legend_format(legend).instant()


def colors(steps: Steps, base: str = "green") -> ThresholdsConfig:
    """Colour by value: `base`, and another from each step on."""
    thresholds = [Threshold(None, base)]
    thresholds += [Threshold(value, color) for value, color in sorted(steps.items())]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds)


def number(
    title: str,
    unit: str,
    expression: str,
    *,
    span: int = 4,
    steps: Steps | None = None,
    base: str = "green",
) -> stat.Panel:
    """Show the latest value; coloured only where `steps` say what is good."""
    return (
        stat.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit(unit)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(colors(steps or {}, base if steps else "text"))
        .with_target(query(expression, title))
        .span(span)
        .height(4)
    )


def name(
    title: str, expression: str, legend: str, *, value: bool = True, steps: Steps | None = None
) -> stat.Panel:
    """Show what the labels say now, and the value where it means something."""
    panel = (
        stat.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit("none")
        .graph_mode(BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE_AND_NAME if value else BigValueTextMode.NAME)
        .color_mode(BigValueColorMode.BACKGROUND if steps else BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(colors(steps or {}, "green" if steps else "text"))
        .with_target(now(expression, legend))
        .height(4)
    )
    return leading(panel, [legend])


def lines(
    title: str,
    unit: str,
    queries: Mapping[str, str],
    *,
    steps: Steps | None = None,
    signed: bool = False,
) -> timeseries.Panel:
    """Draw legend -> PromQL, from 0 up unless `signed`; `steps` are dashed lines; two to a row."""
    legend = bottom_legend(LegendDisplayMode.TABLE).calcs(["lastNotNull", "mean", "max"])
    panel = (
        timeseries.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit(unit)
        .legend(legend)
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
        .show_points(VisibilityMode.NEVER)
        .span(12)
        .height(8)
    )
    if not signed:
        panel.min(0)
    if steps:
        dashed = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        panel.thresholds(colors(steps, "transparent")).thresholds_style(dashed)
    for ref_id, (label, expression) in zip(REF_IDS, queries.items(), strict=False):
        panel.with_target(query(expression, label, ref_id))
    return leading(panel, queries)


def bars(title: str, unit: str, expression: str, *, steps: Steps | None = None) -> bargauge.Panel:
    """Show one bar for each run, as it was at the end of the time range."""
    return (
        bargauge.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .orientation(VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(colors(steps or {}, "green" if steps else "blue"))
        .with_target(now(expression, "{{run}}"))
        .span(6)
        .height(7)
    )


def facts(title: str, expression: str) -> table.Panel:
    """Show the labels of each series, one to a line."""
    hidden = [DynamicConfigValue("custom.hidden", True)]
    return (
        table.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit("none")
        .with_target(now(expression, "{{run}}").format("table"))
        .override_by_regexp("/^(Time|Value.*)$/", hidden)
        .span(24)
        .height(6)
    )


def bottom_legend(mode: LegendDisplayMode) -> common.VizLegendOptions:
    """Put the legend below the panel."""
    legend = common.VizLegendOptions().show_legend(True).display_mode(mode)
    return legend.placement(LegendPlacement.BOTTOM)


def dash_limits(panel: timeseries.Panel) -> timeseries.Panel:
    """Dash the lines whose legend ends in `limit` or `target`."""
    style = {"fill": "dash", "dash": [8, 8]}
    return panel.override_by_regexp(
        "/ (limit|target)$/", [DynamicConfigValue("custom.lineStyle", style)]
    )


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """Fill the lines, one upon the other."""
    stacking = common.StackingConfig().mode(StackingMode.NORMAL).group("A")
    return panel.stacking(stacking).fill_opacity(40)
