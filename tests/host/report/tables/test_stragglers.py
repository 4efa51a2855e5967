from __future__ import annotations

from pathlib import Path

from fedbench.host.report.tables.stragglers import Straggler, round_table
from fedbench.records import ClientRound, summarise

SUMMARY = summarise(Path(__file__).parents[3] / "golden" / "runs" / "20260102-030405-digits")


def test_a_round_names_who_held_it_up_and_what_the_others_waited() -> None:
    """In the first legacy-pc works 20 s, laptop 8.5 s and workstation 3.25 s."""
    header, rows = round_table(SUMMARY)
    assert header == (
        "round", "server accuracy", "server loss", "wall s", "emulated s", "overhead wall s",
        "clients", "slowest", "times the fastest", "others waited wall s", "kJ", "not held",
    )  # fmt: skip
    assert rows == [
        (
            "1", "0.2500", "2.1250", "22.50", "22.50", "1.50", "3/3",
            "legacy-pc", "6.2", "14.12", "-", "-",
        ),
        (
            "2", "0.5000", "1.5000", "9.00", "9.00", "0.75", "2/3",
            "laptop", "2.5", "5.00", "-", "-",
        ),
    ]  # fmt: skip


def test_who_works_alone_lets_nobody_wait() -> None:
    alone = ClientRound(client="a", device="laptop", epoch_seconds=[2.0])
    record = SUMMARY.rounds[0].model_copy(update={"clients": [alone]})
    assert Straggler.of(record) == Straggler("a", 1.0, None)


def test_the_slowest_is_one_of_those_that_worked() -> None:
    assert Straggler.among({"a": 2.0, "b": 0.0, "c": 6.0}) == Straggler("c", 3.0, 4.0)
    assert Straggler.among({"a": 0.0}) is None


def test_a_round_has_the_energy_of_its_clients() -> None:
    drawn = {"energy_idle_joules": 1500.0, "energy_busy_joules": 500.0}
    clients = [ClientRound(client=name, device="laptop", **drawn) for name in "ab"]
    record = SUMMARY.rounds[0].model_copy(update={"clients": clients})
    ((*_, kilojoules, _),) = round_table(SUMMARY.model_copy(update={"rounds": [record]}))[1]
    assert kilojoules == "4.00"
