"""The parts that measure: in small, on the CPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import ModuleType

import pytest
import speed
import torch
import truth

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="beside a GPU the parts themselves run"
)


@dataclass
class Time:
    """A deadline that is as far away as it was."""

    seconds: float

    def left(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("part", "keys"),
    [
        (
            speed,
            [
                "plain/mobilenet_v3_small/8",
                "limit/mobilenet_v3_small/8",
                "variant/contiguous/mobilenet_v3_small/8",
                "variant/cudnn-benchmark/mobilenet_v3_small/8",
            ],
        ),
        (
            truth,
            [
                "mobilenet_v3_small/8/train/cpu/1",
                "mobilenet_v3_small/8/evaluate/cpu/1",
                "mobilenet_v3_small/8/train/cpu/1/alone",
            ],
        ),
    ],
    ids=["speed", "truth"],
)
def test_a_part_measures_what_is_not_known(part: ModuleType, keys: list[str]) -> None:
    known, *others = keys

    records = list(part.measure(CPU, Time(60), {known}, small=True))

    assert [record["key"] for record in records] == others
    for record in records:
        json.dumps(record)
        laps = record["seconds_per_step"]
        for seconds in laps.values() if isinstance(laps, dict) else [laps]:
            assert len(seconds) == record["n"] >= 2
            assert min(seconds) > 0


@pytest.mark.parametrize("part", [speed, truth])
def test_a_part_without_time_measures_nothing(part: ModuleType) -> None:
    assert list(part.measure(CPU, Time(1), (), small=True)) == []


def test_one_that_fails_is_named_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError

    monkeypatch.setattr(speed, "kernels_of", fail)
    records = []

    with pytest.raises(RuntimeError, match=r"not be measured: limit/mobilenet_v3_small/8$"):
        records.extend(speed.measure(CPU, Time(60), (), small=True))
    assert len(records) == 3


def test_cores_of_one_physical_core_are_not_chosen_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "siblings", lambda core: [core // 2 * 2, core // 2 * 2 + 1])

    assert truth.apart(list(range(16))) == {1: [14], 2: [12, 10]}
    assert truth.apart(list(range(4))) == {}
