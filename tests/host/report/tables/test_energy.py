from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.host.report.tables.energy import energy_table, joules, of_run
from fedbench.records import ClientRound, Summary, by_client, summarise

SUMMARY = summarise(Path(__file__).parents[3] / "golden" / "runs" / "20260102-030405-digits")
JOULES = st.none() | st.tuples(st.floats(0, 1e6), st.floats(0, 1e6))


def run(rounds: list[dict[str, tuple[float, float] | None]]) -> Summary:
    """Idle and busy joules of each client, round by round."""
    records = [
        SUMMARY.rounds[0].model_copy(
            update={"clients": [drawn(name, energy) for name, energy in clients.items()]}
        )
        for clients in rounds
    ]
    return SUMMARY.model_copy(update={"rounds": records})


def drawn(name: str, energy: tuple[float, float] | None) -> ClientRound:
    idle, busy = energy or (None, None)
    return ClientRound(client=name, device=name, energy_idle_joules=idle, energy_busy_joules=busy)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), JOULES), max_size=6))
def test_the_energy_of_a_run_is_that_of_its_rounds_and_of_its_devices(
    rounds: list[dict[str, tuple[float, float] | None]],
) -> None:
    summary = run(rounds)
    parts = [joules(record.clients) for record in summary.rounds]
    devices = [joules(clients) for clients in by_client(summary.rounds).values()]

    for whole in (parts, devices):
        known = [part for part in whole if part is not None]
        assert of_run(summary) == (pytest.approx(sum(known)) if known else None)


def test_a_device_has_idle_and_busy_apart_and_its_mean_round() -> None:
    summary = run([{"a": (1000, 3000), "b": (500, 0)}, {"a": (1000, 5000), "b": None}])
    assert energy_table(summary) == (
        ("client", "idle kJ", "busy kJ", "kJ", "kJ / round"),
        [
            ("a", "2.00", "8.00", "10.00", "5.00"),
            ("b", "0.50", "0.00", "0.50", "0.50"),
            ("all", "2.50", "8.00", "10.50", "5.25"),
        ],
    )


def test_energy_that_nobody_knows_is_a_dash() -> None:
    """Of an older version, or of devices without watts."""
    assert of_run(SUMMARY) is None
    assert all(row[1:] == ("-",) * 4 for row in energy_table(SUMMARY)[1])
