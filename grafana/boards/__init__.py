"""The dashboards, one module each; by the name of their file, `fedbench-<name>` is their uid."""

from __future__ import annotations

import json
from typing import Any

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
# What Grafana's Prometheus source reads of an annotation, and the SDK does not know: the time is
# the series' value.
_ANNOTATION = {"useValueForTime": True, "titleFormat": "{{run}} started", "step": "10s"}


def render(dashboard: Dashboard) -> str:
    """Write the JSON that Grafana provisions; panels are numbered from 1, as links need."""
    model: dict[str, Any] = json.loads(json.dumps(dashboard.build(), cls=JSONEncoder))
    tops = model["panels"]
    panels = [panel for top in tops for panel in (top, *(top.get("panels") or []))]
    for index, panel in enumerate(panels, start=1):
        panel["id"] = index
        # The SDK writes it without a `repeat`; Grafana 11.1 then stacks every panel.
        panel.pop("repeatDirection", None)
    for annotation in model["annotations"]["list"]:
        annotation.update(_ANNOTATION)
    return json.dumps(model, indent=2, sort_keys=True) + "\n"
