"""The fast part of `fedbench chaos`, on a federation that is up for other tests, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from docker.models.containers import Container
from harness import ROOT, Done, fedbench

from fedbench.host.chaos.scenario import load_scenarios

pytestmark = pytest.mark.docker


def test_what_is_broken_is_known_and_the_run_goes_on(
    first_run: Done, containers: Callable[[], dict[str, Container]], tmp_path: Path
) -> None:
    before = {name: container.id for name, container in containers().items()}
    file = tmp_path / "chaos.json"

    done = fedbench("chaos", "--here", "--fast", "--output", str(file))

    assert done.code == 0
    rows = {row["scenario"]: row for row in json.loads(file.read_text())}
    assert rows.keys() == {one.name for one in load_scenarios() if one.fast}
    assert {row["ok"] for row in rows.values()} == {True}, "none may be skipped"
    assert not any(row["data_lost"] or row["rounds_lost"] for row in rows.values())
    crash = rows["worker-crash"]
    assert 0 < crash["detected_seconds"] < 5
    assert f"{next(iter(_clients()))} is missing in round" in crash["seen"]
    after = containers()
    assert {name: container.id for name, container in after.items()} == before
    assert {container.health for container in after.values()} == {"healthy"}


def _clients() -> list[str]:
    newest = max((ROOT / "runs").glob("*-chaos"), key=lambda path: path.name)
    return list(json.loads((newest / "experiment.json").read_text())["clients"])
