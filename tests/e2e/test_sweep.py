"""A sweep on a real federation: run, and skipped when it is run again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from harness import PROJECT, ROOT, SET_PORTS, fedbench, run_id, summary

from fedbench.records.runs import RunStore

pytestmark = pytest.mark.docker

NAME = f"sweep-of-{PROJECT}"
SWEEP = f"""\
name: {NAME}
profile: legacy-pair
experiment: digits
set:
  rounds: 1
  data.train_samples: 64
  data.test_samples: 32
grid:
  data.partition: [iid, replicated]
"""
OPTIONS = [part for setting in SET_PORTS.split() for part in ("--set", setting)]


@pytest.fixture
def sweep(clean: docker.DockerClient, tmp_path: Path) -> Iterator[str]:
    """The file of a sweep of two runs, of which nothing is done."""
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    shutil.rmtree(ROOT / "runs" / "sweeps" / NAME, ignore_errors=True)
    yield str(file)  # its federation stays up: the next tests want the same
    shutil.rmtree(ROOT / "runs" / "sweeps" / NAME, ignore_errors=True)


def test_a_sweep_is_run_once(sweep: str, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    first = fedbench("sweep", sweep, *OPTIONS, "--output", str(table), timeout=1800)
    assert first.code == 0
    assert "run 2/2 (data.partition=replicated, seed=0), about " in first.output
    last = summary(run_id(first.output))
    assert (last["status"], last["profile"]) == ("finished", "legacy-pair")
    assert [client["samples"] for client in last["rounds"][0]["clients"]] == [64, 64]
    assert table.read_text().count(f"\n{NAME},") == 2
    assert "2 of 2 runs are finished" in (ROOT / "runs" / "sweeps" / NAME / "table.md").read_text()

    before = RunStore(ROOT / "runs").all()
    again = fedbench("sweep", sweep, *OPTIONS, "--json")
    assert again.code == 0
    assert f"sweep {NAME}: 2 runs, 2 of them finished" in again.output
    assert RunStore(ROOT / "runs").all() == before
    rows = json.loads(again.output[again.output.index("[") :])
    assert [row["accuracy"]["n"] for row in rows] == [1, 1]
