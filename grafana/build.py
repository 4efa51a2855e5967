"""Build Grafana's dashboards as code: `python grafana/build.py` writes grafana/dashboards/*.json.

The JSON is committed, since Grafana reads it; tests/test_grafana.py keeps the two equal.
"""

from __future__ import annotations

from pathlib import Path

from boards import BOARDS, render

DASHBOARDS = Path(__file__).resolve().parent / "dashboards"

if __name__ == "__main__":
    for name, build in BOARDS.items():
        (DASHBOARDS / f"{name}.json").write_text(render(build()), encoding="utf-8")
