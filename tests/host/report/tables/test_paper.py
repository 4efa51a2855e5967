from __future__ import annotations

import pytest

from fedbench.config import load_profile
from fedbench.host.plan.plan import client_names
from fedbench.host.report.tables import paper
from fedbench.host.report.tables.paper import PaperRun


def numbers(original: PaperRun) -> dict[str, float]:
    return {number.metric: number.paper for number in original.numbers}


def test_table_2_is_one_run_on_three_devices() -> None:
    (original,) = paper.table2()
    assert (original.model, original.rounds, original.local_epochs) == ("mobilenet_v2", 5, 5)
    values = numbers(original)
    assert values["server_accuracy"] == 0.7877
    assert values["local_epoch_seconds (laptop)"] == 33
    assert values["local_epoch_seconds (legacy-pc)"] == 225
    assert values["total_hours"] == 1.57


def test_table_3_has_the_four_models_and_the_logs_of_those_that_were_published() -> None:
    studies = {original.model: original for original in paper.table3()}
    assert {model: numbers(s)["server_accuracy"] for model, s in studies.items()} == {
        "mobilenet_v1": 0.8081,
        "mobilenet_v2": 0.8074,
        "mobilenet_v3_small": 0.642,
        "mobilenet_v3_large": 0.7704,
    }
    assert all((s.rounds, s.local_epochs) == (20, 20) for s in studies.values())
    assert numbers(studies["mobilenet_v3_small"])["local_accuracy (legacy-pc-2)"] == 0.662
    assert [len(s.accuracies) for s in studies.values()] == [0, 20, 0, 20]


def test_every_published_run_has_a_curve_as_long_as_its_rounds() -> None:
    studies = paper.published()
    assert len(studies) == 14
    for original in studies:
        assert len(original.accuracies) == len(original.losses) == original.rounds
        assert numbers(original)["server_accuracy"] == original.accuracies[-1]


@pytest.mark.parametrize("original", [*paper.table2(), *paper.table3()])
def test_its_clients_are_those_of_its_profile(original: PaperRun) -> None:
    names = client_names(load_profile(original.profile))
    assert {number.client for number in original.numbers if number.client} <= set(names)
