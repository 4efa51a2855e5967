"""The kinds of panels that the dashboards are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias, TypeVar

from grafana_foundation_sdk.builders import (
    common,
    prometheus,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
    trend,
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
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.text import TextMode

from boards.promql import at_each

Panel: TypeAlias = stat.Panel | timeseries.Panel | statetimeline.Panel | table.Panel | trend.Panel
Steps: TypeAlias = Mapping[float, str]
"""Colours by the value from which each holds."""

# What a container cannot know: the quota that clients of one computer have in common.
SHARED_USE = "Clients of one computer each count against all of it: of k at work, each has 1/k."
SHARED_THROTTLING = "Clients of one computer show 0: the quota is their common one."
SOURCE = DataSourceRef("prometheus", "fedbench-prometheus")  # provisioning/datasources
REF_IDS = "ABCDEFGHIJ"
"""Ids of a panel's queries, in order."""
DISTURBS = (
    "A browser on the emulation's own host takes CPU from the devices, and they come late. "
    "Look from another computer: `ssh -N -L 3000:localhost:3000 HOST`."
)
NOTHING = "-"
"""What a number shows that is not there: neutral, for it is mostly too early."""


P = TypeVar("P", bound=Panel)


def leading(panel: P, legends: Collection[str]) -> P:
    """Let a click on a client open its Device; `legends` are those of the queries, in order.

    The series of a query without clients, as the server's, lead nowhere.
    """
    url = "/d/fedbench-device?${__url_time_range}&var-run=${run}"
    url += "&var-client=${__field.labels.client}"
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


def now(expression: str, legend: str, ref_id: str = "A") -> prometheus.Dataquery:
    """Ask for `expression` at the end of the time range only."""
    target = prometheus.Dataquery().datasource(SOURCE).ref_id(ref_id)
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
    """Show the value at the end; coloured only where `steps` say what is good."""
    panel = single(title, unit, expression, title).span(span).height(4)
    return panel.thresholds(colors(steps or {}, base if steps else "text"))


def name(title: str, expression: str, legend: str) -> stat.Panel:
    """Show what the labels say now."""
    panel = single(title, "none", expression, legend).height(4)
    panel.text_mode(BigValueTextMode.NAME).thresholds(colors({}, "text"))
    return leading(panel, [legend])


def headline(title: str, expression: str, legend: str, steps: Steps) -> stat.Panel:
    """Say who, and how much, as large as the page allows."""
    panel = single(title, "none", expression, legend).height(5)
    panel.text_mode(BigValueTextMode.VALUE_AND_NAME).color_mode(BigValueColorMode.BACKGROUND)
    panel.text(common.VizTextDisplayOptions().title_size(36).value_size(48))
    return leading(panel.thresholds(colors(steps)), [legend])


def single(title: str, unit: str, expression: str, legend: str) -> stat.Panel:
    """Start a panel of one value at the end of the time range."""
    return (
        stat.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit(unit)
        .no_value(NOTHING)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(now(expression, legend))
    )


def lines(
    title: str,
    unit: str,
    queries: Mapping[str, str],
    *,
    steps: Steps | None = None,
    signed: bool = False,
) -> timeseries.Panel:
    """Draw legend -> PromQL, from 0 up unless `signed`; `steps` are dashed lines; two to a row.

    Clients come first, sorted by name as Prometheus has them: so Grafana gives a client the same
    colour in each panel. What is not of a client is drawn in neutral colours.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit(unit)
        .legend(side_legend())
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
        .show_points(VisibilityMode.NEVER)
        .axis_soft_max(SOFT_MAX.get(unit, 0.1))
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


SOFT_MAX: Mapping[str, float] = {"bytes": 2**20, "binBps": 2**10}
"""How far an axis reaches at least, by unit: one of nothing but zeros would reach to 10,000 %."""


def trends(title: str, unit: str, label: str, place: str, by_run: str) -> trend.Panel:
    """Draw one line for each run over the values of `place`; `promql.at_each` says how."""
    axis = f"{label}\\run"
    return (
        trend.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit(unit)
        .x_field(axis)
        .legend(side_legend())
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .span_nulls(True)
        .show_points(VisibilityMode.ALWAYS)
        .axis_soft_max(SOFT_MAX.get(unit, 0.1))
        .min(0)
        .with_target(now(at_each(label, place, by_run), "{{run}}").format("table"))
        .with_transformation(sorted_by("run"))
        .with_transformation(
            DataTransformerConfig(
                id_val="groupingToMatrix",
                options={"columnField": "run", "rowField": label, "valueField": "Value"},
            )
        )
        .with_transformation(converted(axis))
        .with_transformation(sorted_by(axis))
        .override_by_name(axis, [DynamicConfigValue("unit", "none")])
        .span(12)
        .height(9)
    )


def sorted_by(field: str, *, descending: bool = False) -> DataTransformerConfig:
    """Sort the rows of a table."""
    order = [{"field": field, "desc": descending}]
    return DataTransformerConfig(id_val="sortBy", options={"fields": {}, "sort": order})


def converted(field: str) -> DataTransformerConfig:
    """Make numbers of a field that came as a label."""
    conversion = {"targetField": field, "destinationType": "number"}
    return DataTransformerConfig(
        id_val="convertFieldType", options={"conversions": [conversion], "fields": {}}
    )


def facts(
    title: str, info: str, labels: Sequence[str], values: Mapping[str, tuple[str, str]]
) -> table.Panel:
    """Show a line for each run: `labels` of `info`, then those of name -> (unit, PromQL).

    Each query yields one series for each run, which starts with its date: the newest is first.
    """
    renamed = {label: label.capitalize() for label in labels}
    panel = (
        table.Panel().title(title).datasource(SOURCE).no_value(NOTHING).unit("none").min_width(80)
    )
    panel.with_target(now(info, "run", REF_IDS[0]).format("table"))
    for ref_id, (column, (unit, expression)) in zip(REF_IDS[1:], values.items(), strict=False):
        panel.with_target(now(expression, column, ref_id).format("table"))
        renamed[f"Value #{ref_id}"] = column
        panel.override_by_name(column, [DynamicConfigValue("unit", unit)])
    panel.override_by_name("Run", [DynamicConfigValue("custom.width", 230)])
    return panel.transformations(
        [
            DataTransformerConfig(id_val="joinByField", options={"byField": "run"}),
            DataTransformerConfig(
                id_val="filterFieldsByName", options={"include": {"names": [*renamed]}}
            ),
            DataTransformerConfig(
                id_val="organize",
                options={
                    "indexByName": {field: place for place, field in enumerate(renamed)},
                    "renameByName": renamed,
                },
            ),
            sorted_by("Run", descending=True),
        ]
    ).span(24)


def note(markdown: str) -> text.Panel:
    """Say something to whoever looks, in one line."""
    return (
        text.Panel().mode(TextMode.MARKDOWN).content(markdown).transparent(True).span(24).height(2)
    )


def side_legend() -> common.VizLegendOptions:
    """Put a legend beside the plot, where eight entries fit: last, least and most."""
    legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.TABLE)
    return legend.placement(LegendPlacement.RIGHT).calcs(["lastNotNull", "min", "max"])


def bottom_legend(mode: LegendDisplayMode) -> common.VizLegendOptions:
    """Put the legend below the panel."""
    legend = common.VizLegendOptions().show_legend(True).display_mode(mode)
    return legend.placement(LegendPlacement.BOTTOM)


def dash_limits(panel: timeseries.Panel) -> timeseries.Panel:
    """Dash the lines whose legend ends in `limit` or `target`, in a neutral colour."""
    style = {"fill": "dash", "dash": [8, 8]}
    return panel.override_by_regexp(
        "/(^| )(limit|target)$/",
        [DynamicConfigValue("custom.lineStyle", style), fixed("text")],
    )


def server_line(panel: timeseries.Panel, legend: str = "server") -> timeseries.Panel:
    """Draw what is of no client wide and neutral."""
    return panel.override_by_name(
        legend, [fixed("text"), DynamicConfigValue("custom.lineWidth", 2)]
    )


def fixed(color: str) -> DynamicConfigValue:
    """Give a series a colour of its own."""
    return DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """Fill the lines, one upon the other."""
    stacking = common.StackingConfig().mode(StackingMode.NORMAL).group("A")
    return panel.stacking(stacking).fill_opacity(40)
