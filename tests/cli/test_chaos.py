"""`fedbench chaos` without any containers: its lists, its table, and what it refuses."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from commands import Fedbench, markdown_rows
from fake_containers import FakeContainers

from fedbench.engines.containers.runtime import daemon
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.host.chaos import matrix, results
from fedbench.host.chaos.results import BEGIN, END, ChaosResults
from fedbench.host.chaos.scenario import Scenario, names
from fedbench.host.chaos.verdict import ChaosRow
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import Places
from fedbench.records import replace_text

ROW = ChaosRow(
    scenario="client-kill", description="killed", expected="finished", seen="finished", ok=True
)


def test_the_list_names_every_scenario(fedbench: Fedbench) -> None:
    code, out, _ = fedbench("chaos", "--list")

    assert code == 0
    assert {row[0] for row in markdown_rows(out)[2:]} >= set(names())
    code, out, _ = fedbench("chaos", "--list", "--fast", "--json")
    fast = json.loads(out)
    assert 0 < len(fast) < len(names())
    assert all(one["fast"] for one in fast)


def test_an_unknown_scenario_is_refused_before_anything_is_brought_up(
    fedbench: Fedbench, places: Places
) -> None:
    code, out, err = fedbench("chaos", "client-kil")

    assert (code, out) == (2, "")
    assert "unknown scenario 'client-kil'; did you mean client-kill" in err
    assert not places.root.exists()


def test_without_a_daemon_it_says_so(fedbench: Fedbench) -> None:
    code, _, err = fedbench("chaos", "client-kill")

    assert code == 3
    assert "no Docker daemon answers" in err


def test_the_table_is_written_into_the_document(fedbench: Fedbench, places: Places) -> None:
    ChaosResults(places.runs / results.FILE, anew=True).add(ROW)
    document = places.root / "RELIABILITY.md"
    replace_text(document, f"# Reliability\n{BEGIN}\n{END}\nand so on\n")

    code, out, _ = fedbench("chaos", "--table")

    assert code == 0
    assert f"wrote the table of 1 scenarios into {document}" in out.replace("\n", "")
    assert "| client-kill | killed | finished | finished |" in document.read_text()


def test_a_table_of_nothing_is_refused(fedbench: Fedbench, places: Places) -> None:
    code, _, err = fedbench("chaos", "--table")
    assert code == 1
    assert "chaos.json is missing" in err

    ChaosResults(places.runs / results.FILE, anew=True).add(ROW)
    code, _, err = fedbench("chaos", "--table")
    assert code == 1
    assert "RELIABILITY.md: " in err


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A matrix that tries nothing: the first is as expected, the second is not, others skipped."""
    done: list[str] = []

    class Pretended:
        def __init__(self, *arguments: Any) -> None:
            *_, self._recorded, _, self._show = arguments

        def repair(self, _before: object) -> None:
            pass

        def run(self, scenarios: list[Scenario]) -> list[ChaosRow]:
            rows = []
            for number, one in enumerate(scenarios):
                ok = {0: True, 1: False}.get(number)
                facts = {"scenario": one.name, "ok": ok, "problems": [] if ok else ["too late"]}
                rows.append(ROW.model_copy(update=facts))
                self._recorded.add(rows[-1])
                self._show(rows[-1])
                done.append(one.name)
            return rows

    monkeypatch.setattr(matrix, "Matrix", Pretended)
    monkeypatch.setattr(daemon, "connect", lambda _: FakeContainers())
    monkeypatch.setattr(bootstrap, "docker_session", lambda _: nullcontext())
    return done


def test_here_is_the_federation_that_is_up(
    fedbench: Fedbench, stack: Stack, places: Places, tried: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "other.json"
    three = ["worker-crash", "client-kill", "client-crash"]

    code, out, err = fedbench("chaos", "--here", *three, "--output", str(file))

    assert tried == ["client-kill", "client-crash", "worker-crash"]
    assert (code, out) == (5, "")
    assert "client-kill: ok\n  expected  finished\n  seen      finished\n" in err
    assert "client-crash: NOT AS EXPECTED" in err
    assert "  problem   too late" in err
    assert "1 of 2 scenarios are as expected, 1 skipped" in err
    assert "error: not as expected: client-crash" in err
    assert [row.scenario for row in results.read(file)] == tried
    assert not (places.runs / results.FILE).exists()


def test_what_is_skipped_fails_nobody(
    fedbench: Fedbench, stack: Stack, places: Places, tried: list[str]
) -> None:
    code, out, err = fedbench("chaos", "--here", "client-kill", "--json")

    assert code == 0
    assert [row["ok"] for row in json.loads(out)] == [True]
    assert "1 of 1 scenarios are as expected, 0 skipped" in err
    assert (places.runs / results.FILE).exists()


def test_a_federation_of_somebody_else_is_not_broken(
    fedbench: Fedbench, stack: Stack, tried: list[str]
) -> None:
    code, _, err = fedbench("chaos", "client-kill")

    assert code == 1
    assert "error: a federation is up: legacy-pair" in err
    assert tried == []
