from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from fedbench.learning.pace import Speed
from fedbench.records.facts import (
    EmulatedDevices,
    InProcessClient,
    InProcessFacts,
    RunFacts,
    RunInputs,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "runs"
NAMES = {"run": "r1", "experiment": "e", "profile": "p", "created": "2026-01-02T03:04:05+00:00"}


@pytest.mark.parametrize("folder", sorted(GOLDEN.iterdir()), ids=lambda folder: folder.name)
def test_runs_of_older_versions_are_read(folder: Path) -> None:
    """They emulated nothing, and said less."""
    facts = RunFacts.read(folder)

    assert facts.run == folder.name
    assert (facts.emulation, facts.watts, facts.engine, facts.project) == (None, {}, None, None)
    assert facts.dilation == 1.0
    assert facts.emulates
    assert facts.created_at.isoformat() == "2026-01-02T03:04:05+00:00"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    devices = EmulatedDevices(
        dilation=2.5, targets={"a": 100.0}, pace={"a": Speed(40.0, 60.0)}, shares={"a": 0.5}
    )
    client = InProcessClient(name="a", device="laptop", data="/data/a")
    facts = RunFacts(
        **NAMES, clients=1, classes=10, data="d", emulation=devices,
        watts={"laptop": (10.0, 60.0)}, engine=InProcessFacts(clients=[client], samples=7),
    )  # fmt: skip

    facts.write(tmp_path)

    assert RunFacts.read(tmp_path) == facts
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["emulation"]["pace"] == {"a": [40.0, 60.0]}
    assert written["watts"] == {"laptop": [10.0, 60.0]}
    assert facts.dilation == 2.5
    assert not facts.emulates


def test_what_nobody_set_is_not_written(tmp_path: Path) -> None:
    RunFacts(**NAMES, clients=3).write(tmp_path)

    assert json.loads((tmp_path / "run.json").read_text()) == NAMES | {"clients": 3}


def test_keys_of_a_later_version_are_ignored_and_a_run_without_a_name_is_none() -> None:
    assert RunInputs.model_validate({"clients": 2, "weather": "fair"}) == RunInputs(clients=2)
    with pytest.raises(ValidationError, match="created"):
        RunFacts.model_validate({"run": "r1", "experiment": "e", "profile": "p"})
