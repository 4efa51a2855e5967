from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedbench.config import load_experiment, load_profile
from fedbench.errors import RunError
from fedbench.records import runs, write_summary
from fedbench.records.facts import RunInputs
from fedbench.records.runs import Run, RunStore

GOLDEN = Path(__file__).parent.parent / "golden" / "runs"
EXPERIMENT = load_experiment("digits")
PROFILE = load_profile("heterogeneous")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run of two rounds; nobody wrote its summary yet."""
    name = "20260102-030405-digits"
    return Run(Path(shutil.copytree(GOLDEN / name, tmp_path / "runs" / name)))


class Clock:
    @staticmethod
    def now(zone: object) -> datetime:
        assert zone is UTC
        return datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC)


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "datetime", Clock)


def test_a_new_run_holds_its_resolved_inputs(store: RunStore, stopped_clock: None) -> None:
    inputs = {"clients": 3, "classes": 10, "data": "digits-iid-3-s0-12345678"}
    run = store.create(EXPERIMENT, PROFILE, RunInputs(**inputs))
    assert run.path == store.path / "20260102-030405-digits"
    assert run.id == "20260102-030405-digits"
    assert (run.experiment(), run.profile()) == (EXPERIMENT, PROFILE)
    assert json.loads((run.path / "run.json").read_text()) == {
        **inputs,
        "run": "20260102-030405-digits",
        "experiment": "digits",
        "profile": "heterogeneous",
        "created": "2026-01-02T03:04:05.678+00:00",
    }
    assert run.state() == "running"
    assert run.events() == []


def test_runs_of_one_second_have_folders_of_their_own(store: RunStore, stopped_clock: None) -> None:
    created = [store.create(EXPERIMENT, PROFILE, RunInputs()) for _ in range(3)]
    assert [run.id for run in created] == [
        "20260102-030405-digits",
        "20260102-030405-digits-2",
        "20260102-030405-digits-3",
    ]
    assert store.all() == created
    assert store.find(None) == created[-1]
    assert json.loads((created[1].path / "run.json").read_text())["run"] == created[1].id


def test_a_run_is_found_by_its_id_and_the_newest_without(run: Run) -> None:
    store = RunStore(run.path.parent)
    newer = run.path.parent / "20260102-030406-noop"
    shutil.copytree(run.path, newer)
    assert store.find(run.id) == run
    assert store.find(None) == Run(newer)


def test_a_folder_that_is_no_run_is_none(run: Run) -> None:
    (run.path.parent / "99990101-000000-notes").mkdir()
    assert RunStore(run.path.parent).all() == [run]


def test_a_run_that_does_not_exist_is_answered_with_the_nearest(run: Run) -> None:
    with pytest.raises(RunError) as caught:
        RunStore(run.path.parent).find("20260102-030405-digit")
    assert caught.value.message == f"no run '20260102-030405-digit' in {run.path.parent}"
    assert caught.value.hint == f"did you mean {run.id}?"


def test_where_none_is_near_the_newest_are_named(run: Run) -> None:
    for second in range(6, 10):
        shutil.copytree(run.path, run.path.parent / f"20260102-03040{second}-digits")
    with pytest.raises(RunError) as caught:
        RunStore(run.path.parent).find("zzz")
    assert caught.value.hint == (
        "did you mean 20260102-030407-digits or 20260102-030408-digits or 20260102-030409-digits?"
    )


def test_without_runs_there_is_nothing_to_find(store: RunStore) -> None:
    with pytest.raises(RunError) as caught:
        store.find(None)
    assert caught.value.hint == "start one with `make up` or `make run`"
    with pytest.raises(RunError) as caught:
        store.find("some-run")
    assert caught.value.hint == "there are no runs yet"


def test_a_run_is_running_until_its_summary_says_how_it_ended(run: Run) -> None:
    assert run.state() == "running"
    assert run.summary().status == "finished"
    write_summary(run.path)
    assert run.state() == "finished"


def at(second: float) -> datetime:
    return datetime(2026, 1, 2, 3, 4, tzinfo=UTC) + timedelta(seconds=second)


def tell(run: Run, *events: tuple[float, str]) -> None:
    facts = {"after_round": 0, "round": 1, "rounds": 2, "clients": []}
    lines = [
        json.dumps({"time": at(second).isoformat(), "event": event} | facts)
        for second, event in events
    ]
    (run.path / "events.jsonl").write_text("".join(line + "\n" for line in lines))


OPEN = datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("events", "periods"),
    [
        ([], [(5, None)]),
        ([(6, "started"), (7, "round")], [(5, None)]),
        ([(6, "started"), (40, "finished")], [(5, 40)]),
        ([(6, "error")], [(5, 6)]),
        ([(6, "started"), (9, "stopped"), (20, "started")], [(5, 9), (20, None)]),
        ([(6, "started"), (9, "stopped"), (20, "started"), (30, "error")], [(5, 9), (20, 30)]),
        ([(6, "started"), (8, "round"), (20, "started"), (30, "finished")], [(5, 8), (20, 30)]),
    ],
)
def test_a_run_is_active_from_its_start_to_its_end(
    events: list[tuple[float, str]], periods: list[tuple[float, float | None]], run: Run
) -> None:
    """It was made at second 5; None is an end that nobody has seen."""
    tell(run, *events)
    wanted = [(at(begin), OPEN if end is None else at(end)) for begin, end in periods]
    assert run.periods() == wanted
    write_summary(run.path)
    os.utime(run.path / "summary.json", (at(50).timestamp(), at(50).timestamp()))
    assert run.periods() == [(begin, at(50) if end == OPEN else end) for begin, end in wanted]


def test_runs_without_an_end_have_died_where_nothing_runs(store: RunStore, run: Run) -> None:
    tell(run, (6, "started"))
    made = run.facts().model_dump(exclude_unset=True)
    for name, facts in {"one": {"project": "fedbench"}, "another": {"project": "other"}}.items():
        shutil.copytree(run.path, store.path / name)
        (store.path / name / "run.json").write_text(json.dumps(made | facts))
    store.end("fedbench")
    assert [other.state() for other in store.all()] == ["running", "running", "failed"]
    assert store.find("one").summary().error == "the server died"


def test_a_written_summary_is_what_counts(run: Run) -> None:
    written = write_summary(run.path)
    (run.path / "rounds.jsonl").unlink()
    assert run.summary() == written


def test_a_stop_is_asked_for_by_a_file(run: Run) -> None:
    run.request_stop()
    assert (run.path / "stop").exists()


def test_a_stopped_run_can_go_on(run: Run) -> None:
    events = run.path / "events.jsonl"
    events.write_text(events.read_text().replace('"event": "finished"', '"event": "stopped"'))
    run.request_stop()
    assert write_summary(run.path).status == "interrupted"
    run.prepare_resume()
    assert not (run.path / "stop").exists()
    assert not (run.path / "summary.json").exists()
    assert [record.round for record in run.summary().rounds] == [1, 2]


def test_a_run_whose_server_died_can_go_on(run: Run) -> None:
    events = run.path / "events.jsonl"
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:-1]))
    assert run.summary().error == "the server died"
    run.prepare_resume()
    assert run.state() == "running"


def test_a_finished_run_does_not_go_on(run: Run) -> None:
    with pytest.raises(RunError) as caught:
        run.prepare_resume()
    assert caught.value.message == f"run {run.id} is finished"
    assert caught.value.hint == "start a new one with `make run`"


def test_events_are_read_while_one_is_being_written(run: Run) -> None:
    whole = run.events()
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"time": "2026-01-02T03')
    assert run.events() == whole
    assert whole[0]["event"] == "started"
    assert whole[-1]["event"] == "finished"


def test_limits_are_those_of_the_clients_containers(run: Run) -> None:
    assert run.memory_limits() == {}, "there are no containers"
    services = {
        "laptop": {"mem_limit": "1024", "environment": {"FEDBENCH_CLIENT": "laptop"}},
        "server": {"environment": {"FEDBENCH_PORT": "1"}},
        "prometheus": {"mem_limit": "4096"},
    }
    (run.path / "compose.yaml").write_text(json.dumps({"services": services}))
    assert run.memory_limits() == {"laptop": 1024}


def test_what_an_older_version_asked_is_read_as_it_is(run: Run) -> None:
    asked = run.asked() | {"learning_rate_of_old": 1}
    (run.path / "experiment.json").write_text(json.dumps(asked))
    assert run.asked() == asked
