"""Build Grafana's dashboards as code: `python grafana/build.py` writes grafana/dashboards/*.json.

The JSON is committed, since Grafana reads it; tests/test_grafana.py keeps the two equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.builders import common, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TimeZoneBrowser,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
    VariableSort,
)

from fedbench.telemetry.collectors import CLIENT_PHASES

DASHBOARDS = Path(__file__).resolve().parent / "dashboards"
SOURCE = DataSourceRef("prometheus", "fedbench-prometheus")  # provisioning/datasources
PHASE_COLORS = ("text", "blue", "green", "yellow", "purple")  # in the order of CLIENT_PHASES


def federation() -> Dashboard:
    """Build the view of one federation: which device holds it back, why and at what cost."""
    dashboard = (
        Dashboard("Federation")
        .uid("fedbench-federation")
        .tags(["fedbench"])
        .readonly()
        .timezone(TimeZoneBrowser)
        .time("now-30m", "now")
        .refresh("5s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(variable("run", "Run", "label_values(fedbench_round, run)"))
        .with_variable(variable("client", "Client", "label_values(fedbench_usable_cpus, client)"))
    )
    dashboard.with_row(Row("Run"))
    for panel in run_panels():
        dashboard.with_panel(panel)
    dashboard.with_row(Row("Emulation"))
    for panel in emulation_panels():
        dashboard.with_panel(panel)
    dashboard.with_row(Row("Devices"))
    for panel in device_panels():
        dashboard.with_panel(panel)
    return dashboard


def run_panels() -> list[stat.Panel | timeseries.Panel | statetimeline.Panel]:
    """How far the run is, how good the model is, and where a round's time goes."""
    models = "The global model after each round, and each client's own after its last local epoch."
    return [
        number("Round", "none", of_run("fedbench_round")),
        number("Rounds wanted", "none", of_run("fedbench_rounds")),
        number("Server accuracy", "percentunit", of_run("fedbench_server_accuracy")),
        number("Server loss", "none", of_run("fedbench_server_loss")),
        number("Last round, wall", "s", of_run("fedbench_round_last_seconds")),
        number("Clients connected", "none", "fedbench_clients_connected"),
        phases(),
        lines(
            "Accuracy",
            "percentunit",
            {
                "server": of_run("fedbench_server_accuracy"),
                "{{client}}": by_client("fedbench_local_accuracy", with_run=True),
            },
        )
        .max(1)
        .description(models),
        lines(
            "Loss",
            "none",
            {
                "server": of_run("fedbench_server_loss"),
                "{{client}}": by_client("fedbench_local_loss", with_run=True),
            },
        ).description(models),
        lines(
            "Duration of a round, in wall seconds",
            "s",
            {
                "round": of_run("fedbench_round_last_seconds"),
                "overhead": of_run("fedbench_round_overhead_seconds"),
                "aggregation": of_run("fedbench_aggregate_seconds"),
            },
        ).description("Overhead: the round less its slowest client's training and evaluation."),
        stacked(
            lines(
                "Parts of a round's overhead",
                "s",
                {"{{part}}": 'max by (part) (fedbench_round_part_seconds{run=~"$run"})'},
            )
        ).description(
            "Of the slowest client: models sent to it and received from it, bytes made of models "
            "and back, aggregation after the last reply, and the rest, which is waiting."
        ),
        lines(
            "Clients",
            "none",
            {
                "connected": "fedbench_clients_connected",
                "wanted in the last round": of_run("fedbench_clients_wanted"),
                "answered": of_run("fedbench_clients_answered"),
                "failed": of_run("fedbench_clients_failed"),
            },
        ).span(24),
    ]


def emulation_panels() -> list[stat.Panel | timeseries.Panel]:
    """Show whether the emulated devices are as fast as the real ones."""
    return [
        dash_limits(
            lines(
                "Local epoch, in emulated seconds, and the real device's",
                "s",
                {
                    "{{client}}": by_client("fedbench_emulated_epoch_seconds", with_run=True),
                    "{{client}} target": by_client("fedbench_target_epoch_seconds", with_run=True),
                },
            )
        ).description("Dashed: what the real device takes. The median of a round's epochs."),
        lines(
            "How far from the real device",
            "percentunit",
            {
                "{{client}}": f"abs({by_client('fedbench_emulation_error_ratio', with_run=True)})",
            },
        ).description("Of the median epoch of each round, too fast or too slow."),
        lines(
            "Emulation held",
            "none",
            {"{{client}}": by_client("fedbench_emulation_held", with_run=True)},
        )
        .max(1)
        .description("0: the device was more than 5 % off its target in that round."),
        lines(
            "Behind the device",
            "s",
            {"{{client}}": by_client("fedbench_pace_late_seconds", with_run=True)},
        ).description(
            "Within the epoch in progress; a client catches up as far as its quota lets it."
        ),
        lines(
            "Steal",
            "percentunit",
            {"{{client}}": rate("fedbench_cpu_steal_seconds_total")},
        ).description("Share of the time for which the hypervisor kept the client's CPUs."),
        number("Dilation", "none", of_run("fedbench_dilation")),
    ]


def device_panels() -> list[timeseries.Panel]:
    """Show what each device does with its time, CPU, memory and network."""
    return [
        lines(
            "Last local epoch, in wall seconds",
            "s",
            {"{{client}}": by_client("fedbench_local_epoch_last_seconds", with_run=True)},
        ).description("The slowest device holds the round back."),
        lines(
            "Training speed, samples per wall second",
            "none",
            {"{{client}}": by_client("fedbench_samples_per_second", with_run=True)},
        ).description("Of the local epoch in progress, or the last one."),
        dash_limits(
            lines(
                "CPUs used, and the limit",
                "none",
                {
                    "{{client}}": rate("fedbench_cpu_seconds_total"),
                    "{{client}} limit": by_client("fedbench_usable_cpus"),
                },
            )
        ),
        lines("Throttled", "percentunit", {"{{client}}": throttled_share()})
        .max(1)
        .description("Share of scheduler periods in which the device used up its CPU quota."),
        dash_limits(
            lines(
                "Memory used, and the limit",
                "bytes",
                {
                    "{{client}}": by_client("fedbench_memory_bytes"),
                    "{{client}} limit": by_client("fedbench_memory_limit_bytes"),
                },
            )
        ),
        lines(
            "Traffic",
            "Bps",
            {
                "{{client}} sent": rate("fedbench_sent_bytes_total"),
                "{{client}} received": rate("fedbench_received_bytes_total"),
            },
        ),
    ]


def of_run(metric: str) -> str:
    """PromQL: the server's `metric` of the chosen runs, of which one is in progress at a time."""
    return f'max({metric}{{run=~"$run"}})'


def by_client(metric: str, with_run: bool = False) -> str:
    """PromQL: one series per client, also over a restart or over several runs."""
    run = 'run=~"$run", ' if with_run else ""
    return f'max by (client) ({metric}{{{run}client=~"$client"}})'


def rate(counter: str) -> str:
    """PromQL: growth per second of each chosen client's `counter`."""
    return f'max by (client) (rate({counter}{{client=~"$client"}}[$__rate_interval]))'


def throttled_share() -> str:
    """PromQL: 0 where no periods are counted, as while a device idles or has no quota."""
    throttled, periods = (f"fedbench_cpu_{name}_total" for name in ("throttled_periods", "periods"))
    return f"{rate(throttled)} / clamp_min({rate(periods)}, 0.001)"


def variable(name: str, label: str, values: str) -> QueryVariable:
    """Let the viewer choose some or all of `values`."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_DESC)
        .multi(True)
        .include_all(True)
    )


def query(expression: str, legend: str, ref_id: str = "A") -> prometheus.Dataquery:
    """Ask for `expression` over the dashboard's time range; `ref_id` is unique in its panel."""
    target = prometheus.Dataquery().datasource(SOURCE).ref_id(ref_id)
    return target.expr(expression).legend_format(legend).range()


def number(title: str, unit: str, expression: str) -> stat.Panel:
    """Show the latest value; six to a row."""
    return (
        stat.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit(unit)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(query(expression, title))
        .span(4)
        .height(4)
    )


def lines(title: str, unit: str, queries: Mapping[str, str]) -> timeseries.Panel:
    """Draw legend -> PromQL from 0 up, with the last values in the legend; two to a row."""
    panel = (
        timeseries.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .legend(bottom_legend(LegendDisplayMode.TABLE).calcs(["lastNotNull"]))
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
        .show_points(VisibilityMode.NEVER)
        .span(12)
        .height(8)
    )
    for ref_id, (legend, expression) in zip("ABCDEF", queries.items(), strict=False):
        panel.with_target(query(expression, legend, ref_id))
    return panel


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


def phases() -> statetimeline.Panel:
    """Show what each client does, over time: a number for each phase, named and coloured."""
    codes = " or ".join(
        f'fedbench_client_phase{{client=~"$client", phase="{phase}"}} * {code}'
        for code, phase in enumerate(CLIENT_PHASES)
    )
    names = {
        str(code): ValueMappingResult(text=phase, color=color, index=code)
        for code, (phase, color) in enumerate(zip(CLIENT_PHASES, PHASE_COLORS, strict=True))
    }
    return (
        statetimeline.Panel()
        .title("Phase of each client")
        .description("A phase shorter than the scrape interval may not show.")
        .datasource(SOURCE)
        .unit("none")
        .mappings([ValueMap(names)])
        .show_value(VisibilityMode.NEVER)
        .legend(bottom_legend(LegendDisplayMode.LIST))
        .with_target(query(f"sum by (client) ({codes})", "{{client}}"))
        .span(24)
        .height(7)
    )


def render(dashboard: Dashboard) -> str:
    """Write the JSON that Grafana provisions; panels are numbered from 1, as links need."""
    model = dashboard.build()
    for index, panel in enumerate(model.panels or [], start=1):
        panel.id_val = index
    return json.dumps(model, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    (DASHBOARDS / "federation.json").write_text(render(federation()), encoding="utf-8")
