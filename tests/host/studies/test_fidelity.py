from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.errors import FidelityError
from fedbench.host.studies.fidelity import (
    BARS,
    Fidelity,
    epochs,
    interference,
    ratios,
    row,
    slowdowns,
)
from fedbench.records import ClientRound
from fedbench.records.clock import Dilation

SECONDS = st.lists(st.floats(0.1, 1000), min_size=1, max_size=20)


def client(*seconds: float, samples: int = 500) -> ClientRound:
    return ClientRound(client="a", device="a", epoch_seconds=list(seconds), samples=samples)


def test_an_epoch_is_that_of_50_000_images_in_emulated_seconds() -> None:
    assert epochs(client(16.0, 4.0, 5.0), Dilation(2.0)) == [800.0, 200.0, 250.0]


def test_epochs_in_which_quotas_settled_do_not_count_unless_there_are_no_others() -> None:
    assert epochs(client(10.0, 4.0, 3.0, 2.0), Dilation(1.0)) == [300.0, 200.0]
    assert epochs(client(5.0, 4.0), Dilation(1.0)) == [500.0, 400.0]


@given(SECONDS, st.floats(1, 1000))
def test_a_row_has_the_median_and_its_spread(figures: list[float], target: float) -> None:
    made = row("a", target, figures)
    low, high = made.spread
    assert low <= made.emulated <= high
    assert made.target * (1 + made.error) == pytest.approx(made.emulated)
    assert made.n == len(figures)


@given(SECONDS, SECONDS)
def test_a_ratio_is_within_its_spread_and_of_the_slower_to_the_faster(
    one: list[float], other: list[float]
) -> None:
    (ratio,) = ratios([row("fast", 33, one), row("slow", 211, other)])
    assert ratio.name == "slow : fast"
    assert ratio.target == pytest.approx(211 / 33)
    low, high = ratio.spread
    assert low <= ratio.emulated * (1 + 1e-9)
    assert ratio.emulated <= high * (1 + 1e-9)
    assert ratio.n == min(len(one), len(other))


def test_every_pair_has_a_ratio() -> None:
    rows = [row(name, seconds, [seconds]) for name, seconds in (("a", 1), ("b", 3), ("c", 2))]
    assert [ratio.name for ratio in ratios(rows)] == ["b : c", "b : a", "c : a"]


def test_what_one_more_client_costs() -> None:
    rows = [row("1", 225, [225]), row("2", 343, [340]), row("3", 517, [520])]
    assert [(made.name, round(made.target, 2)) for made in slowdowns(rows)] == [
        ("2 : 1", 1.52),
        ("3 : 2", 1.51),
    ]


def test_interference_is_against_the_device_alone() -> None:
    (made,) = interference({"a": [10.0, 11.0, 12.0]}, [row("a", 9, [12.1]), row("b", 9, [1])])
    assert (made.name, made.target, made.emulated) == ("a", 11.0, 12.1)
    assert made.error == pytest.approx(0.1)


@pytest.mark.parametrize("part", BARS)
def test_an_error_beyond_its_bar_is_an_error(part: str) -> None:
    near, far = (1 + BARS[part] * factor for factor in (0.99, -1.01))
    kept = Fidelity.model_validate({"profile": "p", "dilation": 1.0, part: [row("a", 1, [near])]})
    kept.require_bars()
    missed = kept.model_copy(update={part: (row("a", 1, [near]), row("b", 1, [far]))})
    with pytest.raises(FidelityError) as caught:
        missed.require_bars()
    assert caught.value.message.startswith(f"beyond its bar: b ({part}): -")
    assert caught.value.exit_code == 6


def test_a_figure_that_is_no_number_is_beyond_its_bar() -> None:
    broken = row("a", 1, [1]).model_copy(update={"error": math.nan})
    assert Fidelity(profile="p", dilation=1, devices=(broken,)).missed()


def test_what_is_written_has_the_parts_and_keys_that_are_promised(tmp_path: Path) -> None:
    made = Fidelity(profile="table2", dilation=2.5, devices=(row("a", 1, [1.0]),))
    written = json.loads(made.write(tmp_path).read_text())
    assert (tmp_path / "fidelity/fidelity.json").exists()
    assert written.keys() >= {"devices", "ratios", "held_out", "interference"}
    keys = {"name", "target", "emulated", "error", "n", "spread"}
    assert written["devices"][0].keys() == keys
