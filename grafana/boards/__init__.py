"""The dashboards, one module each; by the name of their file, `fedbench-<name>` is their uid."""

from __future__ import annotations

import json

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from boards import compare, device, energy, federation, fidelity

BOARDS = {
    "federation": federation.build,
    "device": device.build,
    "compare": compare.build,
    "fidelity": fidelity.build,
    "energy": energy.build,
}


def render(dashboard: Dashboard) -> str:
    """Write the JSON that Grafana provisions; panels are numbered from 1, as links need."""
    model = dashboard.build()
    tops = model.panels or []
    panels = [panel for top in tops for panel in (top, *(getattr(top, "panels", None) or []))]
    for index, panel in enumerate(panels, start=1):
        panel.id_val = index
    return json.dumps(model, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
