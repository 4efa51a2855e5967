"""The commands of studies: what they print, and the exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from commands import RUN, Fedbench, markdown_rows
from fake_containers import FakeContainers
from fake_engine import FakeEngine

from fedbench.cli import checkout, engines
from fedbench.config import CONFIGS
from fedbench.engines.containers import startup
from fedbench.engines.containers.runtime import daemon
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import RunError
from fedbench.host.data.prepare import prepare as prepare_data
from fedbench.host.plan.plan import client_names
from fedbench.host.setup.places import Places
from fedbench.host.studies import fidelity_runs
from fedbench.host.studies.fidelity import Fidelity
from fedbench.host.studies.sweep import SweepRuns
from fedbench.host.studies.sweep_grid import load_study
from fedbench.records.runs import Run, RunStore


@pytest.fixture
def swept(places: Places) -> list[Run]:
    """The sweep `partitions`, with all runs but the last finished, and that one failed."""
    study = load_study("partitions")
    store = RunStore(places.runs)
    prepare = partial(prepare_data, clients=client_names(study.profile), root=places.data)

    def fails(run: Run) -> None:
        event = {"time": "2026-01-02T03:05:00.000+00:00", "event": "error", "reason": "[it]"}
        with (run.path / "events.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")
        raise RunError(f"run {run.id} failed: [it]")

    engine = FakeEngine(store, study.profile, endings={len(study.points): fails})
    SweepRuns(study, store, prepare, lambda _: None).run(
        engine, None, lambda run: engine.follow(run, lambda: None)
    )
    return store.all()


def test_what_is_finished_is_skipped_and_the_rest_needs_a_daemon(
    fedbench: Fedbench, swept: list[Run], tmp_path: Path
) -> None:
    code, out, err = fedbench("sweep", "partitions", "--output", f"{tmp_path}/table.csv")
    assert (code, out) == (3, "")
    first, second = err.splitlines()[:2]
    assert first == "sweep partitions: 8 runs, 7 of them finished; about 0 min 37 s left"
    assert second.startswith("error: no Docker daemon answers")
    assert (tmp_path / "table.csv").read_text().startswith("sweep,data.partition,local_epochs,n,")


def test_a_sweep_that_is_finished_needs_no_daemon(
    fedbench: Fedbench, places: Places, swept: list[Run]
) -> None:
    last = swept[-1].path / "events.jsonl"
    last.write_text("".join(last.read_text().splitlines(keepends=True)[:-1]))
    folder = places.runs / "sweeps" / "partitions"
    code, out, err = fedbench("sweep", "partitions")
    assert (code, err) == (0, "sweep partitions: 8 runs, 8 of them finished\n")
    assert "| replicated     | 2            | 2/2 | 0.5000 ± 0.0000" in out
    assert out.endswith(f"recorded in {folder}\n")
    code, out, _ = fedbench("sweep", "partitions", "--json")
    rows = json.loads(out)
    assert (code, len(rows)) == (0, 4)
    assert rows[0]["sweep"] == "partitions"
    assert rows[0]["settings"] == {"data.partition": "iid", "local_epochs": 1}
    assert rows[0]["accuracy"]["n"] == 2


def test_a_sweep_goes_on_after_a_failure_and_says_so_at_its_end(
    fedbench: Fedbench, stack: Stack, fake: FakeContainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[Stack] = []

    def fails(run: Run) -> None:
        (run.path / "events.jsonl").unlink()
        raise RunError(f"run {run.id} failed: the server died")

    monkeypatch.setattr(checkout, "bring_up", lambda *_: stack)
    engine = FakeEngine(RunStore(stack.places.runs), stack.profile, endings={2: fails})
    monkeypatch.setattr(engines, "in_containers", lambda stack: engine)
    monkeypatch.setattr(startup, "wait_ready", lambda stack, client, say: waited.append(stack))
    code, out, err = fedbench("sweep", "partitions")
    assert code == 5
    assert "| iid            | 2            | 1/2 |" in out
    lines = err.splitlines()
    failed = RunStore(stack.places.runs).all()[1].id
    why = f"run {failed} failed: the server died"
    assert f"failed: {why}" in lines
    assert "run 8/8 (data.partition=replicated, local_epochs=2, seed=1), about " in err
    assert "round 2/2: accuracy 0.5000, loss 1.5000, 9.0 s (overhead 0.75 s)" in err
    assert lines[-3:-1] == [
        "error: 1 runs failed",
        f"data.partition=iid, local_epochs=2, seed=0: {why}",
    ]
    assert waited == [stack], "until what died is there again"


class Measured:
    """Measures nothing: a federation's fidelity, or why it could not be had."""

    def __init__(self, failure: RunError | None = None) -> None:
        self._failure = failure

    def __call__(self, *_: object, short: bool) -> Measured:
        return self

    def measure(self) -> Fidelity:
        if self._failure:
            raise self._failure
        return Fidelity(profile="legacy-pair", dilation=1.0)


STAYS_UP = "the federation stays up: `make down` takes it down"


@pytest.fixture
def comes_up(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Stack]:
    """What brings the federation up, which is not up before."""
    saved = stack.places.state / "stack.json"
    text = saved.read_text()
    saved.unlink()

    def bring_up(*_: object) -> Stack:
        saved.write_text(text)
        return stack

    monkeypatch.setattr(checkout, "bring_up", bring_up)
    return bring_up


@pytest.mark.parametrize("failure", [None, RunError("run x failed")])
@pytest.mark.parametrize("was_up", [False, True])
def test_fidelity_says_what_it_leaves_up(
    was_up: bool,
    failure: RunError | None,
    fedbench: Fedbench,
    comes_up: Callable[[], Stack],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if was_up:
        comes_up()
    monkeypatch.setattr(daemon, "connect", lambda say: FakeContainers())
    monkeypatch.setattr(fidelity_runs, "FidelityRuns", Measured(failure))
    code, _, err = fedbench("fidelity", "legacy-pair", "--short")
    assert code == (5 if failure else 0)
    assert (STAYS_UP in err.splitlines()) == (not was_up)


@pytest.mark.usefixtures("comes_up")
@pytest.mark.parametrize(
    "command",
    [
        ("sweep", "partitions"),
        ("reproduce", "table2", "--scale", "0.001"),
    ],
)
def test_so_do_sweeps_and_the_papers_runs(
    command: tuple[str, ...],
    fedbench: Fedbench,
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = FakeEngine(RunStore(stack.places.runs), stack.profile)
    monkeypatch.setattr(engines, "in_containers", lambda stack: engine)
    monkeypatch.setattr(daemon, "connect", lambda say: FakeContainers())
    code, _, err = fedbench(*command)
    assert code == 0
    assert err.splitlines().count(STAYS_UP) == 1


def test_two_sweeps_of_one_name_are_refused(fedbench: Fedbench, places: Places) -> None:
    code, out, err = fedbench("sweep", "partitions", f"{CONFIGS}/sweeps/partitions.yaml")
    assert (code, out) == (2, "")
    assert err.endswith("two sweeps have one name, and with it one folder\n")
    assert not places.root.exists()


def test_a_run_is_compared_with_its_twin(fedbench: Fedbench, a_run: Path) -> None:
    twin = Path(shutil.copytree(a_run, a_run.parent / "twin"))
    rounds = (twin / "rounds.jsonl").read_text().replace('"cpu_seconds":4.0', '"cpu_seconds":5.0')
    (twin / "rounds.jsonl").write_text(rounds.replace('"peak_memory_bytes"', '"other"'))
    code, out, err = fedbench("compare", RUN, "twin")
    assert code == 0
    rows = markdown_rows(out)
    assert rows[0] == ["client", "device", "metric", "A", "B", "error %", "spread %", "rounds"]
    assert rows[1][0] == "-" * len(rows[1][0])  # Markdown
    laptop = ["laptop", "laptop", "CPU s", "3.75", "4.25", "+12.5", "+0.0 to +25.0", "2"]
    assert laptop in rows
    assert "note: laptop: peak MiB: only in A\n" in err
    code, out, err = fedbench("compare", RUN, "twin", "--json")
    twins = json.loads(out)
    assert (code, err, twins["a"], twins["b"]) == (0, "", RUN, "twin")
    assert len(twins["unpaired"]) == 3
    errors = {(one["client"], one["metric"]): one["error"] for one in twins["comparisons"]}
    assert (errors["laptop", "CPU s"], errors["workstation", "CPU s"]) == (12.5, 0.0)


@pytest.mark.parametrize("argv", [("x-run", RUN), (RUN, "x-run")])
def test_a_run_to_compare_that_does_not_exist_is_an_error(
    argv: tuple[str, str], fedbench: Fedbench, a_run: Path
) -> None:
    code, out, err = fedbench("compare", *argv)
    assert (code, out) == (5, "")
    assert err.startswith(f"error: no run 'x-run' in {a_run.parent}\n")
