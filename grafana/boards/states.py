"""Panels of states over time: what each client does, and which alerts fired."""

from __future__ import annotations

from collections.abc import Mapping

from grafana_foundation_sdk.builders import statetimeline, timeseries
from grafana_foundation_sdk.builders.dashboard import FieldColor
from grafana_foundation_sdk.models.common import LegendDisplayMode, VisibilityMode
from grafana_foundation_sdk.models.dashboard import FieldColorModeId, ValueMap, ValueMappingResult

from boards.panels import REF_IDS, SOURCE, bottom_legend, fixed, leading, query
from fedbench.host.palette import GRAFANA_PHASES
from fedbench.telemetry.work import CLIENT_PHASES

# 0 while the server is scraped: the absence of alerts means nothing where nothing was looked at.
_QUIET = '0 * count(up{job="server"} == 1)'


def codes(title: str, queries: Mapping[str, str], names: Mapping[str, str]) -> statetimeline.Panel:
    """Draw legend -> PromQL: states from 0 on, in the order of `names`, name -> colour."""
    mapped = {
        str(code): ValueMappingResult(text=text, color=color, index=code)
        for code, (text, color) in enumerate(names.items())
    }
    panel = (
        statetimeline.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit("none")
        .mappings([ValueMap(mapped)])
        # The panel's own default, a continuous scale, has no legend; a mapping's colour wins.
        .color_scheme(FieldColor().mode(FieldColorModeId.FIXED))
        .show_value(VisibilityMode.NEVER)
        .legend(bottom_legend(LegendDisplayMode.LIST))
        .span(12)
        .height(8)
    )
    for ref_id, (legend, expression) in zip(REF_IDS, queries.items(), strict=False):
        panel.with_target(query(expression, legend, ref_id))
    return leading(panel, queries)


def phases() -> statetimeline.Panel:
    """Show what each client does, over time: a number for each phase, named and coloured."""
    terms = " or ".join(
        f'fedbench_client_phase{{client=~"$client", phase="{phase}"}} * {code}'
        for code, phase in enumerate(CLIENT_PHASES)
    )
    panel = codes(
        "Phase of each client", {"{{client}}": f"sum by (client) ({terms})"}, GRAFANA_PHASES
    )
    return panel.description("A phase shorter than a scrape may not show.").span(24).height(9)


def in_phase_colors(panel: timeseries.Panel) -> timeseries.Panel:
    """Give each phase, by its name, the colour that it has everywhere."""
    for phase, color in GRAFANA_PHASES.items():
        panel.override_by_name(phase, [fixed(color)])
    return panel


def firing() -> str:
    """Return PromQL for the number of alerts; nothing where Prometheus scraped nothing."""
    return f'count(ALERTS{{alertstate="firing"}}) or {_QUIET}'


def alerts() -> statetimeline.Panel:
    """Show which alerts fired, and when; one quiet line where none did."""
    of_clients = 'count by (alertname, client) (ALERTS{alertstate="firing", client!=""})'
    others = 'count by (alertname) (ALERTS{alertstate="firing", client=""})'
    quiet = f'label_replace({_QUIET}, "alertname", "none", "", "")'
    panel = codes(
        "Alerts",
        {"{{alertname}} {{client}}": of_clients, "{{alertname}}": f"{others} or {quiet}"},
        {"quiet": "green", "firing": "red"},
    )
    return panel.description("compose/prometheus/rules/alerts.yml says when each fires, and why.")
