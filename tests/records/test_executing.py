from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden_run import unfinished_run

from fedbench.records import executing
from fedbench.records.runs import Run, RunStore


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of two rounds so far."""
    return unfinished_run(tmp_path / "runs")


def complete(run: Run, number: int) -> None:
    record = json.loads((run.path / "rounds.jsonl").read_text().splitlines()[-1])
    with (run.path / "rounds.jsonl").open("a") as file:
        file.write(json.dumps(record | {"round": number}) + "\n")


def test_a_run_is_executed_until_it_is_said_to_have_ended(run: Run) -> None:
    runs = run.path.parent
    assert executing.all_executing(runs, "p") == []
    executing.begin(run.path, "p")
    assert run.is_executing()
    assert executing.all_executing(runs, "p") == [run.path]
    assert executing.all_executing(runs, "another") == []
    (run.path / "summary.json").write_text("{}")
    assert not run.is_executing()
    run.prepare_resume()
    assert not run.is_executing(), "nobody executes it yet"


def test_a_run_whose_executor_dies_goes_on_as_long_as_it_gets_on(run: Run) -> None:
    executing.begin(run.path, "p")
    for number in range(3, 8):
        assert executing.went_on(run.path, "it died")
        assert executing.went_on(run.path, "it died")
        complete(run, number)
    told = [e["after_round"] for e in run.events() if e["event"] == "restarted"]
    assert told == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_a_run_whose_executor_dies_and_dies_failed(run: Run) -> None:
    executing.begin(run.path, "p")
    answers = [executing.went_on(run.path, "it died") for _ in range(3)]

    assert answers == [True, True, False]
    assert not run.is_executing()
    assert run.summary().status == "failed"
    assert run.summary().error == "it died, 3 times before round 3 was complete"


def test_an_end_in_order_is_no_death(run: Run) -> None:
    executing.begin(run.path, "p")
    for _ in range(10):
        executing.put_down(run.path)
        assert executing.was_put_down(run.path)
        assert executing.went_on(run.path, "the server was stopped")
    assert executing.went_on(run.path, "it died")


def test_a_run_whose_federation_is_taken_down_says_so(run: Run) -> None:
    facts = run.facts().model_copy(update={"project": "p"})
    facts.write(run.path)
    executing.begin(run.path, "p")
    (run.path / executing.SPARE_FILE).touch()
    RunStore(run.path.parent).end("p")
    assert run.summary().error == "the federation was taken down, or brought up anew"
    for left in (executing.EXECUTING_FILE, executing.SPARE_FILE):
        assert not (run.path / left).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"deaths": -1}'])
def test_a_damaged_mark_knows_of_no_death(run: Run, content: str) -> None:
    (run.path / executing.EXECUTING_FILE).write_text(content)
    assert run.is_executing()
    assert executing.went_on(run.path, "it died")


def test_the_time_without_a_server_is_not_the_runs(run: Run) -> None:
    def tell(second: int, event: str) -> None:
        moment = f"2026-01-02T03:{second // 60:02}:{second % 60:02}.000+00:00"
        line = json.dumps({"time": moment, "event": event, "reason": "", "after_round": 0})
        with (run.path / "events.jsonl").open("a") as file:
            file.write(line + "\n")

    (run.path / "events.jsonl").unlink()
    for second, event in [(300, "started"), (310, "x"), (400, "restarted"), (410, "started")]:
        tell(second, event)
    tell(425, "finished")
    created = run.facts().created_at
    waited = 300 - (created.minute * 60 + created.second)
    assert run.summary().total_seconds == waited + 10 + 15
