from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from fedbench.telemetry.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
DASHBOARDS = ROOT / "grafana/dashboards"
RULES = ROOT / "compose/prometheus/rules"
NAMES = ("federation", "device", "compare", "fidelity", "energy")
SOURCE = {"type": "prometheus", "uid": "fedbench-prometheus"}
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum")}
# What a legend may tell lines apart by: none of them has more values as rounds go on.
LABELS = {"client", "device", "phase", "part", "direction", "state", "run", "alertname"}
# Absent where there is no GPU; allowed in a row that is closed at first, and nowhere else.
GPU = "fedbench_gpu_"

Model = dict[str, Any]


@pytest.fixture(scope="module")
def boards() -> ModuleType:
    return pytest.importorskip("boards", reason="grafana_foundation_sdk comes with the dev extra")


@pytest.fixture(params=NAMES)
def dashboard(request: pytest.FixtureRequest) -> Model:
    return load(request.param)


def load(name: str) -> Model:
    model: Model = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return model


def everything(dashboard: Model) -> list[Model]:
    """Rows and panels, those within a closed row included."""
    return [one for top in dashboard["panels"] for one in (top, *top.get("panels", []))]


def panels(dashboard: Model) -> list[Model]:
    return [panel for panel in everything(dashboard) if panel["type"] != "row"]


def expressions(dashboard: Model) -> list[str]:
    queries = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    return queries + [variable["query"] for variable in dashboard["templating"]["list"]]


def rules() -> list[dict[str, Any]]:
    groups = [g for path in RULES.glob("*.yml") for g in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def declared() -> set[str]:
    """The names that a query may use: those of samples, not of families."""
    return {
        metric.name + suffix
        for metric in METRICS.values()
        for suffix in SUFFIXES.get(metric.kind, ("",))
    }


def used(expression: str) -> set[str]:
    return set(re.findall(r"(?<!client:)\bfedbench_\w+", expression))


def test_the_committed_dashboards_are_what_the_code_builds(boards: ModuleType) -> None:
    assert tuple(boards.BOARDS) == NAMES
    assert {path.stem for path in DASHBOARDS.glob("*.json")} == set(NAMES)
    for name, build in boards.BOARDS.items():
        assert boards.render(build()) == (DASHBOARDS / f"{name}.json").read_text(), (
            "run `python grafana/build.py`"
        )


def test_queries_use_what_is_declared_or_recorded(dashboard: Model) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for query in expressions(dashboard):
        series = set(re.findall(r"client:fedbench_\w+:\w+", query))
        assert used(query) <= declared(), query
        assert series <= recorded, query
        assert used(query) or series or "ALERTS" in query


def test_rules_use_what_is_declared() -> None:
    for rule in rules():
        assert used(rule["expr"]) <= declared(), rule["expr"]


def test_every_metric_is_shown_somewhere() -> None:
    queries = [query for name in NAMES for query in expressions(load(name))]
    queries += [rule["expr"] for rule in rules()]
    shown = {re.sub(r"_bucket$", "", name) for query in queries for name in used(query)}
    assert set(METRICS) <= shown


def test_every_panel_can_be_read(dashboard: Model) -> None:
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["datasource"] == SOURCE
        assert panel["fieldConfig"]["defaults"]["unit"]
        ids = [target["refId"] for target in panel["targets"]]
        assert ids == sorted(set(ids))
        assert len({target["legendFormat"] for target in panel["targets"]}) == len(ids)
        for target in panel["targets"]:
            assert target["datasource"] == SOURCE
            assert target["legendFormat"]
            labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert labels <= LABELS
            assert all(label in target["expr"] or label in "client" for label in labels)


def test_a_state_timeline_names_its_colours(dashboard: Model) -> None:
    for panel in (one for one in panels(dashboard) if one["type"] == "state-timeline"):
        assert panel["options"]["legend"]["showLegend"]
        # Of a continuous scale, which is the plugin's default, Grafana draws no legend.
        assert panel["fieldConfig"]["defaults"]["color"]["mode"] == "fixed"


def test_only_a_closed_row_needs_a_gpu(dashboard: Model) -> None:
    open_panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert GPU not in json.dumps(open_panels)
    for closed in (row for row in dashboard["panels"] if row.get("panels")):
        assert closed["collapsed"]
        assert all(GPU in target["expr"] for p in closed["panels"] for target in p["targets"])


def test_panels_have_their_own_place_and_number(dashboard: Model) -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in everything(dashboard))
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in everything(dashboard)]
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_has_a_fixed_address_and_leads_to_the_others(name: str) -> None:
    dashboard = load(name)
    assert dashboard["uid"] == f"fedbench-{name}"
    assert dashboard["tags"] == ["fedbench"]
    (link,) = dashboard["links"]
    assert (link["type"], link["tags"]) == ("dashboards", ["fedbench"])
    assert link["keepTime"]


def test_a_click_on_a_client_leads_to_its_device() -> None:
    first, *_ = panels(load("federation"))
    (link,) = first["fieldConfig"]["defaults"]["links"]
    assert link["url"].startswith("/d/fedbench-device?")
    assert "var-client=${__field.labels.client}" in link["url"]


def test_only_series_of_clients_lead_to_a_device(dashboard: Model) -> None:
    for panel in panels(dashboard):
        of_clients = {
            target["refId"] for target in panel["targets"] if "{{client}}" in target["legendFormat"]
        }
        config = panel["fieldConfig"]
        if config["defaults"].get("links"):
            linked = {target["refId"] for target in panel["targets"]}
        else:
            linked = {
                override["matcher"]["options"]
                for override in config["overrides"] or []
                if override["matcher"]["id"] == "byFrameRefID"
                and [one["id"] for one in override["properties"]] == ["links"]
            }
        assert linked == of_clients, panel["title"]


def test_one_chooses_runs_and_clients(dashboard: Model) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    chosen = set(re.findall(r"\$([a-z]\w*)", " ".join(expressions(dashboard))))

    assert chosen == variables.keys()
    one = {name for name, variable in variables.items() if not variable.get("includeAll")}
    assert one == ({"client"} if dashboard["uid"] == "fedbench-device" else set())


def test_federation_first_says_who_why_and_at_what_cost() -> None:
    row, *first = load("federation")["panels"][:8]
    assert row["title"] == "Who holds the round back, why, and what it costs"
    assert [panel["title"] for panel in first] == [
        "Held back by", "It is", "CPU of its quota", "Throttled", "Its transfers", "Others wait",
        "Energy of waiting",
    ]  # fmt: skip
    assert {panel["type"] for panel in first} == {"stat"}


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
