from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine

from fedbench.config import load_experiment
from fedbench.engines.engine import EngineName
from fedbench.errors import ConfigError
from fedbench.host.report.tables import paper
from fedbench.host.studies.reproduce import (
    Reproduction,
    beside,
    caveats,
    choose,
    curves,
    experiment,
    name,
    table,
)
from fedbench.records import ClientRound, RoundRecord, Summary
from fedbench.records.facts import InProcessFacts, RunInputs
from fedbench.records.runs import RunStore

(STUDY,) = paper.table2()
STARTED = "2026-11-24T00:00:00+00:00"


def client(name: str, epochs: list[float], **figures: Any) -> ClientRound:
    return ClientRound(client=name, device=name, epoch_seconds=epochs, dilation=2.0, **figures)


def record(number: int, **figures: Any) -> RoundRecord:
    clients = [
        client("laptop", [6.0, 6.6], local_accuracy=0.8, local_loss=0.5, evaluate_seconds=1.0),
        client("legacy-pc", [45.0], local_accuracy=0.6, local_loss=0.7, evaluate_seconds=2.0),
        ClientRound(client="workstation", device="workstation", error="killed", dilation=2.0),
    ]
    values = {"server_accuracy": 0.5, "server_loss": 1.5, "server_epoch_seconds": 2.0} | figures
    return RoundRecord(
        round=number, started_at=STARTED, duration_seconds=99.0, overhead_seconds=1.0,
        aggregate_seconds=0.1, clients=clients, **values,
    )  # fmt: skip


def summary(*rounds: RoundRecord, status: str = "finished") -> Summary:
    return Summary(
        run="r", status=status, experiment="negi2023", profile="heterogeneous",
        started_at=STARTED, total_seconds=720.0, rounds=list(rounds), dilation=2.0,
    )  # fmt: skip


Reproduce = Callable[..., tuple[Reproduction, FakeEngine]]


@pytest.fixture
def reproduce(tmp_path: Path) -> Reproduce:
    def made(engine: EngineName = "in-process", *, fresh: bool = False) -> Any:
        store = RunStore(tmp_path / "runs")
        inputs = RunInputs(engine=InProcessFacts() if engine == "in-process" else None)
        runner = FakeEngine(store, inputs=inputs)
        return Reproduction(lambda: runner, store, engine, lambda _: None, fresh=fresh), runner

    return made


CHOSEN = experiment(STUDY, 0.1, None, 0)


def test_the_experiment_is_the_papers_protocol() -> None:
    whole = experiment(STUDY, 1.0, None, 0)
    assert (whole.rounds, whole.local_epochs, whole.batch_size) == (5, 5, 32)
    assert (whole.learning_rate, whole.fraction) == (0.001, 1.0)
    assert whole.data.partition.name == "replicated"
    assert (whole.data.train_samples, whole.data.test_samples) == (None, None)
    assert (CHOSEN.data.train_samples, CHOSEN.data.test_samples) == (5_000, 1_000)
    assert experiment(STUDY, 1.0, 2, 7).model_dump()["rounds"] == 2


@pytest.mark.parametrize("original", paper.published(), ids=lambda o: f"{o.model}-{name(o)}")
def test_a_tuned_run_costs_what_the_papers_does(original: paper.PaperRun) -> None:
    tuned = experiment(original, 0.1, None, 3, tuned=True)
    base = load_experiment(f"tuned-{original.model.replace('_', '-')}")
    cost = (tuned.model, tuned.rounds, tuned.local_epochs, tuned.seed)
    assert cost == (original.model, original.rounds, original.local_epochs, 3)
    assert tuned.data.partition.name == "replicated"
    assert (tuned.data.train_samples, tuned.data.test_samples) == (5_000, 1_000)
    for key in ("schedule", "augmentation", "weight_decay", "learning_rate", "batch_size"):
        assert getattr(tuned, key) == getattr(base, key)
    assert tuned.schedule != experiment(original, 0.1, None, 3).schedule


def test_a_tuned_run_is_not_the_papers(reproduce: Reproduce) -> None:
    reproduce()[0].run(STUDY, CHOSEN, None)
    other, runner = reproduce()
    other.run(STUDY, experiment(STUDY, 0.1, None, 0, tuned=True), None)
    assert len(runner.calls) == 1


def test_what_is_finished_needs_nothing_that_makes_runs(
    reproduce: Reproduce, tmp_path: Path
) -> None:
    first = reproduce()[0].run(STUDY, CHOSEN, None)
    store = RunStore(tmp_path / "runs")
    finished = Reproduction(lambda: pytest.fail("prepared"), store, "in-process", lambda _: None)
    assert finished.run(STUDY, CHOSEN, None).run == first.run


def test_a_finished_run_is_taken_as_it_is(reproduce: Reproduce) -> None:
    first = reproduce()[0].run(STUDY, CHOSEN, None)
    again, runner = reproduce()
    assert again.run(STUDY, CHOSEN, None).run == first.run
    assert runner.calls == []


@pytest.mark.parametrize("change", ["fresh", "engine", "scale"])
def test_what_is_not_the_same_is_run(reproduce: Reproduce, change: str) -> None:
    reproduce()[0].run(STUDY, CHOSEN, None)
    other, runner = reproduce(
        "containers" if change == "engine" else "in-process", fresh=change == "fresh"
    )
    other.run(STUDY, experiment(STUDY, 0.2, None, 0) if change == "scale" else CHOSEN, None)
    assert len(runner.calls) == 1


def test_an_interrupted_run_goes_on(reproduce: Reproduce) -> None:
    first, runner = reproduce()
    run = runner.create(CHOSEN, None)
    (run.path / "summary.json").write_text(summary(status="interrupted").model_dump_json())
    (run.path / "stop").touch()
    assert first.run(STUDY, CHOSEN, None).run == run.id
    assert runner.calls[1:] == [f"resume {run.id}"]
    assert not (run.path / "stop").exists()


def test_every_figure_stands_beside_the_papers() -> None:
    rows = beside(STUDY, summary(record(1), record(2, server_accuracy=0.75)), 0.1, "containers")
    ours = {row.metric: row.ours for row in rows}
    assert ours["server_accuracy"] == 0.75
    assert ours["local_accuracy (laptop)"] == 0.8
    # Of a tenth of the data, at a dilation of 2: ten times half the median.
    assert ours["local_epoch_seconds (laptop)"] == pytest.approx(31.5)
    assert ours["server_epoch_seconds (legacy-pc)"] == pytest.approx(10.0)
    assert ours["total_hours"] == pytest.approx(1.0)
    assert "local_accuracy (workstation)" not in ours  # it has none
    assert [row.paper for row in rows if row.metric == "local_epoch_seconds (laptop)"] == [33]


def test_times_of_a_run_in_process_say_nothing_of_the_paper() -> None:
    rows = beside(STUDY, summary(record(1)), 1.0, "in-process")
    assert not [row for row in rows if "seconds" in row.metric or "hours" in row.metric]
    assert rows


def test_accuracies_differ_by_points_and_the_rest_by_per_cent() -> None:
    rows = beside(STUDY, summary(record(1)), 1.0, "containers")
    cells = {row[1]: row[2:] for row in table(rows)[1]}
    assert cells["server_accuracy"] == ("0.7877", "0.5", "-28.8 points")
    assert cells["server_loss"] == ("0.6628", "1.5", "+126%")


def test_the_curve_stands_beside_the_published_one() -> None:
    study = choose(None, "10x5", ["mobilenet_v2"])[0]
    _, rows = curves(study, summary(record(1), record(2), record(11, server_accuracy=None)))
    assert rows[:2] == [
        ("1", "0.1000", "0.5000", "2.3035", "1.5000"),
        ("2", "0.5700", "0.5000", "1.3846", "1.5000"),
    ]
    assert rows[2] == ("11", "-", "-", "-", "1.5000")


def test_runs_are_chosen_by_table_by_name_and_by_model() -> None:
    assert [study.model for study in choose("table3", None, ["mobilenet_v1"])] == ["mobilenet_v1"]
    assert len(choose(None, "10x10", [])) == 4


@pytest.mark.parametrize(
    ("what", "run", "models", "message"),
    [
        (None, None, [], "expected table2, table3, or --run 10x5"),
        ("table3", "10x5", [], "expected table2, table3, or --run 10x5"),
        ("table4", None, [], "expected table2, table3"),
        (None, "7x7", [], "no run 7x7 of any model"),
        ("table2", None, ["mobilenet_v1"], "no run table2 of mobilenet_v1"),
    ],
)
def test_what_is_not_there_is_refused(
    what: str | None, run: str | None, models: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(what, run, models)


def test_the_reader_is_told_what_is_not_the_papers() -> None:
    assert list(caveats(1.0, None, "containers")) == []
    assert len(list(caveats(0.1, 2, "in-process"))) == 3
    assert "seconds and hours are multiplied by 10" in caveats(0.1, None, "containers")
    assert list(caveats(1.0, None, "containers", tuned=True)) == [
        "trained as the tuned experiments do, at the paper's rounds, local epochs and data"
    ]
