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
LABELS = {"client", "device", "phase", "part", "direction", "state", "run", "alertname", "reason"}
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
    return [panel for panel in everything(dashboard) if panel["type"] not in ("row", "text")]


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
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for query in queries for name in used(query)}
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


def test_only_the_row_of_the_gpu_needs_one(dashboard: Model) -> None:
    rest = [one for one in dashboard["panels"] if one.get("title") != "GPU"]
    assert GPU not in json.dumps(rest)
    for closed in (row for row in dashboard["panels"] if row.get("panels")):
        assert closed["collapsed"]
        if closed["title"] == "GPU":
            assert all(GPU in target["expr"] for p in closed["panels"] for target in p["targets"])


def test_few_queries_are_asked_at_first(dashboard: Model) -> None:
    """Each costs a CPU that the emulation wants: 48 and 42 a page were too many."""
    open_panels = [panel for panel in dashboard["panels"] if panel.get("targets")]
    assert sum(len(panel["targets"]) for panel in open_panels) <= 16
    assert dashboard["refresh"] == "10s"


def lines_of(panels: list[Model]) -> dict[int, list[Model]]:
    """Panels by the row of cells that they begin in."""
    found: dict[int, list[Model]] = {}
    for panel in panels:
        found.setdefault(panel["gridPos"]["y"], []).append(panel)
    return found


def sections(dashboard: Model) -> list[list[Model]]:
    """The panels of each row, open or closed."""
    found: list[list[Model]] = []
    for top in dashboard["panels"]:
        if top["type"] == "row":
            found.append(list(top.get("panels") or []))
        else:
            found[-1].append(top)
    return found


def test_no_line_is_half_empty(dashboard: Model) -> None:
    for section in sections(dashboard):
        for beside in lines_of(section).values():
            titles = [panel.get("title") for panel in beside]
            assert sum(panel["gridPos"]["w"] for panel in beside) == 24, titles
            assert len({panel["gridPos"]["h"] for panel in beside}) == 1, titles


def test_titles_fit(dashboard: Model) -> None:
    """At 1,600 pixels a column has 66, a letter about 8; the menu and the note take 60."""
    for panel in panels(dashboard):
        room = panel["gridPos"]["w"] * 66 - 60
        assert len(panel["title"]) * 8 <= room, panel["title"]


def test_legends_show_all_their_entries(dashboard: Model) -> None:
    """Beside the plot, where each takes 26 pixels of the 38 that a row of cells has."""
    for panel in (one for one in panels(dashboard) if one["type"] in ("timeseries", "trend")):
        legend = panel["options"]["legend"]
        assert (legend["placement"], legend["displayMode"]) == ("right", "table")
        assert legend["calcs"] == ["lastNotNull", "min", "max"], "no mean over wall time"
        assert panel["gridPos"]["h"] >= 8, "room for eight entries"
        assert panel["gridPos"]["w"] >= 12, "room for the plot beside it"


def test_axes_of_nothing_but_zeros_are_sane(dashboard: Model) -> None:
    for panel in (one for one in panels(dashboard) if one["type"] in ("timeseries", "trend")):
        custom = panel["fieldConfig"]["defaults"]["custom"]
        assert 0 < custom["axisSoftMax"] <= 2**20


def test_units_are_of_one_family(dashboard: Model) -> None:
    units = {panel["fieldConfig"]["defaults"]["unit"] for panel in panels(dashboard)}
    plain = {unit for unit in units if not unit.startswith("suffix:")}
    assert plain <= {"none", "percentunit", "s", "joule", "watt", "bytes", "binBps"}


def test_nothing_to_show_is_neutral(dashboard: Model) -> None:
    for panel in (one for one in panels(dashboard) if one["type"] == "stat"):
        assert panel["fieldConfig"]["defaults"]["noValue"] == "-"


def test_quiet_is_said_only_where_something_was_scraped() -> None:
    queries = [query for name in NAMES for query in expressions(load(name)) if "ALERTS" in query]
    assert queries
    assert not any("vector(0)" in query for query in queries)


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
    others, *whole_run = dashboard["links"]
    assert (others["type"], others["tags"]) == ("dashboards", ["fedbench"])
    assert others["keepTime"]
    assert others["includeVars"]
    assert all("var-run=${run}&from=${started}" in link["url"] for link in whole_run)
    assert len(whole_run) == (0 if name == "compare" else 1)


def test_the_start_of_a_run_is_marked(dashboard: Model) -> None:
    (starts,) = dashboard["annotations"]["list"]
    assert starts["expr"] == "fedbench_run_start_timestamp_seconds * 1000"
    assert starts["useValueForTime"]
    assert starts["datasource"] == SOURCE


def test_grafana_11_stacks_panels_of_a_direction_without_repeat(dashboard: Model) -> None:
    assert not any("repeatDirection" in panel for panel in everything(dashboard))


def test_a_click_on_a_client_leads_to_its_device() -> None:
    first, *_ = panels(load("federation"))
    (link,) = first["fieldConfig"]["defaults"]["links"]
    assert link["url"].startswith("/d/fedbench-device?")
    assert "var-run=${run}" in link["url"]
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


def test_one_chooses_a_run_and_clients(dashboard: Model) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    chosen = set(re.findall(r"\$([a-z]\w*)", " ".join(expressions(dashboard))))
    several = {name for name, variable in variables.items() if variable.get("includeAll")}

    assert chosen <= variables.keys()
    assert variables.keys() - chosen <= {"started"}, "which the link has"
    assert several == {
        "fedbench-compare": {"runs"},
        "fedbench-device": set(),
    }.get(dashboard["uid"], {"client"})


def test_it_opens_on_the_newest_run(dashboard: Model) -> None:
    """Names of runs begin with their date; Grafana takes the first of a list."""
    first, *_ = dashboard["templating"]["list"]
    assert first["name"] in ("run", "runs")
    assert first["sort"] == 2, "descending"
    assert not first.get("current")


def test_no_panel_mixes_runs(dashboard: Model) -> None:
    run_metrics = {metric.name for metric in METRICS.values() if "run" in metric.labels}
    choice = 'run=~"$runs"' if dashboard["uid"] == "fedbench-compare" else 'run="$run"'
    queries = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    for query in queries:
        for name, labels in re.findall(r"\b(fedbench_\w+)(?:{([^}]*)})?", query):
            if re.sub(r"_(bucket|count|sum)$", "", name) in run_metrics:
                assert choice in labels, query


def test_device_opens_on_the_slowest() -> None:
    (client,) = (v for v in load("device")["templating"]["list"] if v["name"] == "client")
    assert client["query"].startswith("query_result(sort_desc(")
    assert client["sort"] == 0, "as Prometheus sorted it"


@pytest.mark.parametrize("name", ["federation", "fidelity"])
def test_who_looks_is_told_not_to_disturb(name: str) -> None:
    (note,) = (panel for panel in everything(load(name)) if panel["type"] == "text")
    assert "ssh -N -L 3000:localhost:3000" in note["options"]["content"]


def test_federation_first_says_who_and_at_what_cost() -> None:
    row, *first = load("federation")["panels"][:4]
    assert row["title"] == "Who holds the round back, and what it costs"
    assert [panel["title"] for panel in first] == [
        "Held back by", "Others wait, each round", "Energy of waiting, each round",
    ]  # fmt: skip
    headline, *_ = first
    assert headline["options"]["text"] == {"titleSize": 36, "valueSize": 48}
    assert headline["gridPos"]["w"] == 12


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
