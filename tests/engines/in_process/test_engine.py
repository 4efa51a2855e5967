"""Runs in one program, from the host's side; the engine is the real one."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import write_parquet

from fedbench import cli
from fedbench.cli import checkout
from fedbench.config import Experiment, load_experiment, load_profile
from fedbench.engines.in_process.engine import InProcessEngine, holders
from fedbench.errors import HostError, RunError, RunInterrupted
from fedbench.host.data.prepare import prepare
from fedbench.host.plan.plan import client_devices
from fedbench.host.setup.places import Places
from fedbench.records import Summary
from fedbench.records.runs import Run

pytestmark = pytest.mark.processes

SMALL = [
    "model=mobilenet_v3_small", "rounds=1", "local_epochs=1",
    "data.train_samples=60", "data.test_samples=20",
]  # fmt: skip


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "checkout")


@pytest.fixture
def runner(places: Places) -> InProcessEngine:
    return InProcessEngine(places, load_profile("legacy-pair"), lambda _: None, workers=0)


def follow(runner: InProcessEngine, run: Run, look: Callable[[], None]) -> Summary:
    runner.start(run)
    return runner.follow(run, look)


def chosen(*settings: str) -> Experiment:
    return load_experiment("digits", [*SMALL, *settings])


def test_a_run_is_prepared_and_followed_to_its_end(runner: InProcessEngine) -> None:
    run = runner.create(chosen(), None)
    looked: list[str] = []
    summary = follow(runner, run, lambda: looked.append(run.state()))
    assert summary.status == "finished"
    (record,) = summary.rounds
    assert [(c.client, c.device, c.samples) for c in record.clients] == [
        ("legacy-pc-1", "legacy-pc", 30), ("legacy-pc-2", "legacy-pc", 30),
    ]  # fmt: skip
    assert looked[-1] == "finished"
    assert json.loads((run.path / "versions.json").read_text())["python"] == sys.version.split()[0]


def test_clients_that_hold_the_same_hold_it_once(runner: InProcessEngine, places: Places) -> None:
    run = runner.create(chosen("data.partition=replicated"), None)
    engine = run.facts().engine
    assert engine is not None
    folders = {client.data for client in engine.clients}
    assert folders == {str((places.in_process / "legacy-pc-1").absolute())}
    assert engine.samples == 2 * 60


@pytest.mark.parametrize("partition", ["replicated", "iid"])
def test_a_run_finds_the_data_that_a_sweep_prepared(
    partition: str, runner: InProcessEngine, places: Places
) -> None:
    experiment = chosen(f"data.partition={partition}")
    names = holders(experiment, client_devices(load_profile("legacy-pair")))
    prepared = prepare(experiment, names, places.in_process)
    before = sorted(places.in_process.glob("*/*"))
    assert runner.create(experiment, None).facts().data == prepared.key
    assert sorted(places.in_process.glob("*/*")) == before


def test_a_run_that_fails_says_where_to_look(runner: InProcessEngine) -> None:
    run = runner.create(chosen(), None)
    (run.path / "experiment.json").write_text("{}")
    with pytest.raises(RunError) as caught:
        follow(runner, run, lambda: None)
    assert caught.value.hint == f"{run.path / 'engine.log'} shows why"
    assert (
        "experiment.json is damaged: name: Field required" in (run.path / "engine.log").read_text()
    )


def test_without_torch_it_says_what_installs_it(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(HostError, match="torch is not installed here") as caught:
        InProcessEngine(places, load_profile("legacy-pair"), lambda _: None)
    assert "make reproduce" in caught.value.hint


@pytest.mark.parametrize("options", [[], ["--tuned"]])
def test_the_paper_is_reproduced_by_a_command(
    options: list[str],
    places: Places,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_parquet(tmp_path)
    monkeypatch.setattr(checkout, "places", places)
    figures = tmp_path / "figures.json"
    command = [
        "fedbench", "reproduce", "--run", "10x5", "--model", "mobilenet_v3_small",
        "--scale", "0.001", "--rounds", "1", "--engine", "in-process", "--workers", "0",
        "--data", str(tmp_path), "--json", str(figures), *options,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    rows = {row["metric"]: row for row in json.loads(figures.read_text())}
    assert rows.keys() == {"server_accuracy", "server_loss", "local_accuracy", "local_loss"}
    assert rows["server_accuracy"].keys() == {"model", "metric", "paper", "ours"}
    printed = capsys.readouterr()
    assert "| mobilenet_v3_small | server_accuracy" in printed.out
    assert "after 1 rounds" in printed.err
    assert ("trained as the tuned experiments do" in printed.err) is bool(options)


def test_a_run_goes_on_from_its_own_record(runner: InProcessEngine) -> None:
    run = runner.create(chosen(), None)
    run.request_stop()
    with pytest.raises(RunInterrupted) as caught:
        follow(runner, run, lambda: None)
    assert caught.value.hint == f"`make run RESUME={run.id} ENGINE=in-process` goes on from there"
    assert runner.resume(run.id) == run
    assert follow(runner, run, lambda: None).status == "finished"
    with pytest.raises(RunError, match="is finished"):
        runner.resume(run.id)


def test_a_run_of_others_does_not_go_on_here(runner: InProcessEngine, places: Places) -> None:
    run = runner.create(chosen(), None)
    run.request_stop()
    other = InProcessEngine(places, load_profile("heterogeneous"), lambda _: None)
    with pytest.raises(RunError, match="belongs to another federation"):
        other.resume(run.id)
    run.facts().model_copy(update={"engine": None}).write(run.path)
    with pytest.raises(RunError, match="was made in containers"):
        runner.resume(run.id)
