"""Scenarios as files: what is refused, and in which order they are run."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from fedbench.config import load_experiment, load_profile
from fedbench.errors import ConfigError
from fedbench.host.chaos import scenario as scenarios
from fedbench.host.chaos.catalogue import FAULTS
from fedbench.host.chaos.misbehaviour import FAULTY
from fedbench.host.chaos.scenario import (
    FaultName,
    Scenario,
    experiment_of,
    load_scenario,
    load_scenarios,
)
from fedbench.host.plan.plan import client_names
from fedbench.wire import Misbehaviour

USUAL = {"name": "one", "description": "a fault", "fault": "kill", "who": "client"}


def written(folder: Path, text: str) -> Path:
    path = folder / "one.yaml"
    path.write_text(f"description: a fault\n{text}")
    return path


def scenario(**values: object) -> Scenario:
    return Scenario.model_validate(USUAL | values)


def test_every_fault_and_every_misbehaviour_has_a_scenario() -> None:
    loaded = load_scenarios()

    assert {one.fault for one in loaded} == set(get_args(FaultName)) == FAULTS.keys()
    assert {one.misbehaviour for one in loaded} - {None} == set(get_args(Misbehaviour))
    assert [one for one in loaded if one.fast], "CI runs none"


def test_every_scenario_is_of_an_experiment_that_can_be() -> None:
    base, clients = load_experiment("chaos"), client_names(load_profile("chaos"))

    for one in load_scenarios():
        chosen = experiment_of(one, base, clients)
        assert chosen.rounds > one.when.round, f"{one.name}: nothing comes after its fault"
        assert set(chosen.clients or ()) <= set(clients)
    assert FAULTY in clients


def test_they_are_run_by_fault_and_the_last_takes_the_federation_down() -> None:
    loaded = load_scenarios()

    assert loaded == sorted(loaded, key=lambda one: one.place)
    assert [one.name for one in loaded if one.fault == "down"] == [loaded[-1].name]


def test_a_file_of_ones_own_is_a_scenario(tmp_path: Path) -> None:
    path = written(tmp_path, "fault: pause\nwho: server\nlasts: 500ms\nwhen: {round: 3}\n")

    loaded = load_scenario(str(path))

    assert (loaded.name, loaded.lasts, loaded.when.round) == ("one", 0.5, 3)
    assert loaded.expected.end == "finished"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fault: explode\nwho: client", "fault: expected 'kill', 'stop', "),
        ("fault: kill\nwho: nobody", "who: expected 'client', 'faulty', "),
        ("fault: kill", "who: this key is missing"),
        ("fault: kill\nwho: faulty", "who: expected client or server or prometheus for fault kill"),
        ("fault: pause\nwho: client", "lasts: this key is missing: fault pause needs it"),
        ("fault: pause\nwho: client\nlasts: long", "lasts: expected a time such as 10ms or 0.5s"),
        ("fault: kill\nwho: client\nlasts: 3s", "lasts: fault kill has no such key"),
        ("fault: link\nwho: client\nlasts: 3s\nnetwork: {dwon: 1}", "network.dwon: no such key"),
        (
            "fault: crash\nwho: client\nprocess: executor",
            "process: expected main or worker of a client, found 'executor'",
        ),
        ("fault: kill\nwho: client\nwhen: {phase: noon}", "when.phase: expected 'training', "),
        ("fault: kill\nwho: client\nexpected: {ends: failed}", "expected.ends: no such key"),
        (
            "fault: kill\nwho: client\nexpected: {missing: '('}",
            "expected.missing: expected a regular expression (",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_and_key(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)

    with pytest.raises(ConfigError) as refused:
        load_scenario(str(path))
    assert f"{path}: {problem}" in refused.value.message
    assert refused.value.hint == f"edit {path}"


def test_an_unknown_name_is_likened_to_known_ones() -> None:
    with pytest.raises(
        ConfigError, match="unknown scenario 'client-kil'; did you mean client-kill"
    ):
        load_scenario("client-kil")
    with pytest.raises(ConfigError, match="unknown scenario"):
        load_scenario("../chaos/client-kill")


def test_two_of_one_name_would_have_one_row(tmp_path: Path) -> None:
    path = written(tmp_path, "name: client-kill\nfault: kill\nwho: client")

    with pytest.raises(ConfigError, match="two scenarios are named client-kill"):
        load_scenarios(["client-kill", str(path)])


def test_a_scenario_changes_the_experiment() -> None:
    base = load_experiment("chaos")
    changed = scenario(set={"rounds": 9, "data.train_samples": 99, "clients": ["b"]})

    chosen = experiment_of(changed, base, ["a", "b"])

    assert (chosen.rounds, chosen.data.train_samples, chosen.clients) == (9, 99, ("b",))
    assert experiment_of(scenario(), base, ["a", "b"]).clients == ("a", "b")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("rounds", "many", "scenario one: set: rounds: expected a whole number, found 'many'"),
        ("ronds", 3, "scenario one: set: ronds: no such key"),
        ("rounds.all", 3, "scenario one: set: 'rounds' has no keys of its own"),
    ],
)
def test_what_it_sets_has_to_be_an_experiments(key: str, value: object, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        experiment_of(scenario(set={key: value}), load_experiment("chaos"), ["a"])
    assert problem in refused.value.message


def test_names_are_those_of_the_folder(tmp_path: Path) -> None:
    written(tmp_path, "")

    assert scenarios.names(tmp_path) == ["one"]
