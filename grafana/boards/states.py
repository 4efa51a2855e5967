"""Panels of states over time: what each client does, and which alerts fired."""

from __future__ import annotations

from collections.abc import Mapping

from grafana_foundation_sdk.builders import statetimeline
from grafana_foundation_sdk.builders.dashboard import FieldColor
from grafana_foundation_sdk.models.common import LegendDisplayMode, VisibilityMode
from grafana_foundation_sdk.models.dashboard import FieldColorModeId, ValueMap, ValueMappingResult

from boards.panels import REF_IDS, SOURCE, bottom_legend, leading, query
from fedbench.telemetry.work import CLIENT_PHASES

PHASE_COLORS = dict(zip(CLIENT_PHASES, ("text", "blue", "green", "yellow", "purple"), strict=True))


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
        "Phase of each client", {"{{client}}": f"sum by (client) ({terms})"}, PHASE_COLORS
    )
    return panel.description("A phase shorter than a scrape may not show.").span(24).height(7)


def alerts() -> statetimeline.Panel:
    """Show which alerts fired, and when; one quiet line where none did."""
    of_clients = 'count by (alertname, client) (ALERTS{alertstate="firing", client!=""})'
    others = 'count by (alertname) (ALERTS{alertstate="firing", client=""})'
    quiet = 'label_replace(vector(0), "alertname", "none", "", "")'
    panel = codes(
        "Alerts",
        {"{{alertname}} {{client}}": of_clients, "{{alertname}}": f"{others} or {quiet}"},
        {"quiet": "green", "firing": "red"},
    )
    return panel.description("compose/prometheus/rules/alerts.yml says when each fires, and why.")
