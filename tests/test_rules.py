"""Prometheus' rules: promtool runs tests/prometheus/, and every alert says what to do."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "compose/prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
TESTS = sorted((ROOT / "tests/prometheus").glob("*.yml"))
RECORDED = {
    "client:fedbench_cpu_use:ratio",
    "client:fedbench_throttled:ratio",
    "client:fedbench_memory_use:ratio",
    "client:fedbench_slowness:ratio",
    "client:fedbench_sent_bytes:rate",
    "client:fedbench_received_bytes:rate",
    "client:fedbench_power:watts",
}


def rules(kind: str) -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def succeed(argv: list[str]) -> None:
    done = subprocess.run(argv, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_do_what_their_tests_say(promtool: list[str]) -> None:
    succeed([*promtool, "test", "rules", *map(str, TESTS)])


def test_prometheus_takes_the_configuration(promtool: list[str]) -> None:
    succeed([*promtool, "check", "config", str(FOLDER / "prometheus.yml")])


def test_the_rules_are_where_prometheus_looks() -> None:
    files = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["rule_files"]
    compose = yaml.safe_load((ROOT / "compose/monitoring.yaml").read_text())

    assert {path for pattern in files for path in FOLDER.glob(pattern)} == set(RULES)
    volumes = compose["services"]["prometheus"]["volumes"]
    assert "./prometheus/rules:/etc/prometheus/rules:ro" in volumes


def test_what_others_rely_on_is_recorded() -> None:
    assert {rule["record"] for rule in rules("record")} == RECORDED


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["for"]
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}


def test_every_rule_has_a_test() -> None:
    tests = [test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]]
    alerts = {
        c["alertname"] for t in tests for c in t.get("alert_rule_test", []) if "exp_alerts" in c
    }
    recorded = {c["expr"] for t in tests for c in t.get("promql_expr_test", [])}

    assert alerts == {rule["alert"] for rule in rules("alert")}
    assert recorded == RECORDED
