from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.server import ServerMetrics

ROOT = Path(__file__).resolve().parent.parent
FEDERATION = ROOT / "grafana/dashboards/federation.json"
SOURCE = {"type": "prometheus", "uid": "fedbench-prometheus"}


@pytest.fixture(scope="module")
def build() -> ModuleType:
    pytest.importorskip("grafana_foundation_sdk", reason="comes with the dev extra")
    spec = importlib.util.spec_from_file_location("grafana_build", ROOT / "grafana/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dashboard() -> dict[str, Any]:
    model: dict[str, Any] = json.loads(FEDERATION.read_text())
    return model


@pytest.fixture
def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def declared() -> set[str]:
    """The names that a query may use: those of samples, not of families."""
    registry = CollectorRegistry()
    ClientMetrics(registry, Cgroup())
    ServerMetrics(registry)
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}
    return {
        family.name + suffix for family in registry.collect() for suffix in suffixes[family.type]
    }


def used(text: str) -> Iterator[str]:
    return iter(re.findall(r"\bfedbench_\w+", text))


def test_the_committed_dashboard_is_what_the_code_builds(build: ModuleType) -> None:
    assert build.render(build.federation()) == FEDERATION.read_text()


def test_queries_use_declared_metrics_only(
    dashboard: dict[str, Any], panels: list[dict[str, Any]]
) -> None:
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"]]

    for query in queries:
        assert set(used(query)) <= declared(), query
        assert list(used(query))


def test_every_panel_can_be_read(panels: list[dict[str, Any]]) -> None:
    for panel in panels:
        assert panel["title"]
        assert panel["datasource"] == SOURCE
        assert panel["fieldConfig"]["defaults"]["unit"]
        ids = [target["refId"] for target in panel["targets"]]
        assert ids == sorted(set(ids))
        for target in panel["targets"]:
            assert target["datasource"] == SOURCE
            assert target["legendFormat"]
            assert ("{{client}}" in target["legendFormat"]) == ("by (client)" in target["expr"])


def test_panels_have_their_own_place_and_number(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))


def test_the_dashboard_has_a_fixed_address_and_lets_one_choose(dashboard: dict[str, Any]) -> None:
    assert dashboard["uid"] == "fedbench-federation"
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["run", "client"]
    assert all(variable["includeAll"] for variable in dashboard["templating"]["list"])


def test_provisioning_names_the_source_and_the_folder_that_compose_mounts() -> None:
    provisioning = ROOT / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load((provisioning / "dashboards/fedbench.yaml").read_text())[
        "providers"
    ]
    grafana = yaml.safe_load((ROOT / "compose/monitoring.yaml").read_text())["services"]["grafana"]
    mounted = f"../grafana/dashboards:{provider['options']['path']}:ro"

    assert {key: source[key] for key in SOURCE} == SOURCE
    assert mounted in grafana["volumes"]
