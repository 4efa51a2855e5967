from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.config import Experiment, available, load_devices, load_experiment, load_profile
from fedbench.config.partitions import Replicated
from fedbench.errors import ConfigError
from fedbench.host.studies.sweep_grid import Point, Sweep, federation, identity, load_study, points

FILE = Path("mine.yaml")
BASE = load_experiment("digits")
PROFILE = load_profile("heterogeneous")
DEVICES = load_devices(PROFILE)


def sweep(**keys: Any) -> Sweep:
    return Sweep.model_validate(
        {"name": "mine", "profile": "heterogeneous", "experiment": "digits"} | keys
    )


@pytest.mark.parametrize("name", available("sweep"))
def test_every_sweep_loads_with_all_its_experiments(name: str) -> None:
    study = load_study(name)
    assert study.sweep.name == name
    assert study.points
    assert study.devices == load_devices(study.profile)


def test_the_study_is_run_as_it_was() -> None:
    study = load_study("study")
    runs = [point.experiment for point in study.points]
    assert {(run.rounds, run.local_epochs) for run in runs} == {(5, 5), (10, 10), (20, 20)}
    assert len({run.model for run in runs}) == 4
    assert len(runs) == 12
    data = runs[0].data
    assert (data.name, data.partition.name, data.train_samples) == ("cifar10", "replicated", None)


def test_a_grid_is_every_combination_with_one_seed_after_the_other() -> None:
    grid = {"data.partition": ["iid", "replicated"], "rounds": [1, 2]}
    found = points(sweep(grid=grid, seeds=2, set={"batch_size": 8}), BASE, FILE)
    assert list(map(str, found)) == [
        "data.partition=iid, rounds=1, seed=0",
        "data.partition=iid, rounds=2, seed=0",
        "data.partition=replicated, rounds=1, seed=0",
        "data.partition=replicated, rounds=2, seed=0",
        "data.partition=iid, rounds=1, seed=1",
        "data.partition=iid, rounds=2, seed=1",
        "data.partition=replicated, rounds=1, seed=1",
        "data.partition=replicated, rounds=2, seed=1",
    ]
    data = BASE.data.model_copy(update={"partition": Replicated()})
    last = {"data": data, "rounds": 2, "seed": 1, "batch_size": 8}
    assert found[-1].experiment == BASE.model_copy(update=last)


def test_keys_with_a_comma_change_together() -> None:
    found = points(sweep(grid={"rounds, local_epochs": [[5, 6], [10, 11]]}), BASE, FILE)
    assert [point.settings for point in found] == [
        {"rounds": 5, "local_epochs": 6},
        {"rounds": 10, "local_epochs": 11},
    ]
    assert [(p.experiment.rounds, p.experiment.local_epochs) for p in found] == [(5, 6), (10, 11)]


def test_without_a_grid_there_is_one_point_for_each_seed() -> None:
    found = points(sweep(seeds=[7, 3]), BASE, FILE)
    assert [point.experiment.seed for point in found] == [7, 3]
    assert [point.settings for point in found] == [{}, {}]


def test_without_seeds_the_experiments_own_is_taken() -> None:
    seeded = BASE.model_copy(update={"seed": 4})
    assert [point.experiment.seed for point in points(sweep(), seeded, FILE)] == [4]
    (point,) = points(sweep(), seeded, FILE, ["seed=5"])
    assert point.experiment.seed == 5


def test_an_option_comes_after_the_file_and_before_the_grid() -> None:
    mine = sweep(set={"rounds": 3}, grid={"local_epochs": [1, 2]})
    found = points(mine, BASE, FILE, ["rounds=9", "data.train_samples=7"])
    assert [(p.experiment.rounds, p.experiment.data.train_samples) for p in found] == [(9, 7)] * 2


@pytest.mark.parametrize("setting", ["rounds=9", "seed=1"])
def test_an_option_cannot_set_what_is_varied(setting: str) -> None:
    with pytest.raises(ConfigError, match="differs between the runs of mine"):
        points(sweep(grid={"rounds": [1, 2]}, seeds=2), BASE, FILE, [setting])


def test_values_of_one_point_do_not_reach_another() -> None:
    grid = {"data": [{"name": "digits"}], "data.partition": ["iid", "replicated"]}
    found = points(sweep(grid=grid), BASE, FILE)
    assert [point.experiment.data.partition.name for point in found] == ["iid", "replicated"]
    assert found[0].settings["data"] == {"name": "digits"}


def test_a_problem_of_many_points_is_told_once() -> None:
    mine = sweep(grid={"rounds": [0, 1], "local_epochs": [1, 2, 3]}, seeds=5)
    with pytest.raises(ConfigError) as caught:
        points(mine, BASE, FILE)
    message = "mine.yaml: rounds: expected a number greater than or equal to 1, found 0"
    assert (caught.value.message, caught.value.hint) == (message, "edit mine.yaml")


values = st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True)


@given(rounds=values, epochs=values, seeds=values)
def test_no_two_points_are_the_same_run(
    rounds: list[int], epochs: list[int], seeds: list[int]
) -> None:
    mine = sweep(grid={"rounds": rounds, "local_epochs": epochs}, seeds=seeds)
    found = points(mine, BASE, FILE)
    assert len(found) == len(rounds) * len(epochs) * len(seeds)
    assert len({identity(point.experiment, "data", {}) for point in found}) == len(found)


def known_by(experiment: Experiment = BASE, data: str = "d", **profile: Any) -> str:
    return identity(experiment, data, federation(PROFILE.model_copy(update=profile), DEVICES))


def test_a_run_is_known_by_all_that_it_depends_on() -> None:
    others = {
        known_by(BASE.model_copy(update={"rounds": 99})),
        known_by(data="e"),
        known_by(dilation=7.0),
        known_by(network="lte"),
        known_by(),
    }
    assert len(others) == 5


def test_names_and_ports_do_not_make_another_run() -> None:
    renamed = BASE.model_copy(update={"name": "other", "description": "d"})
    ports = PROFILE.ports.model_copy(update={"server": 1})
    assert known_by(renamed, name="other", description="d", ports=ports) == known_by()


def test_a_device_that_became_faster_makes_another_run() -> None:
    laptop = DEVICES["laptop"].model_copy(update={"speed": {"mobilenet_v2": 9999.0}})
    faster = federation(PROFILE, DEVICES | {"laptop": laptop})
    assert identity(BASE, "d", faster) != known_by()


def test_a_point_says_its_values_as_the_file_has_them() -> None:
    settings = {"clients": ["laptop"], "data.train_samples": None, "model": "mobilenet_v2"}
    assert str(Point(settings, BASE)) == (
        'clients=["laptop"], data.train_samples=null, model=mobilenet_v2, seed=0'
    )
